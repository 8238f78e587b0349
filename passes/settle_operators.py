"""settle-operators: the end of a choice, once one operator has all the weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import fx

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.layers import Choice
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.erase import bypass, refuse_shared_memory


@dataclass(frozen=True)
class SettleOperators(Mutation):
    """Leave the one operator of a choice that has all the weight, and take the others away.

    Exact in eval and train mode. While others have a weight it would change the function and declines; close the choice
    first: `choice.close(place)`, and see by how much that changes the outputs. Which one is left is part of the
    mutation: a ledger is replayed on weights that were never trained, where the first has all the weight.

    Attributes:
        site: the operator that the choice was opened beside, or the choice itself.
        keep: name of the operator that stays; `present` is the one that was there before.
    """

    site: str
    keep: str = "present"
    name: ClassVar[str] = "settle-operators"
    summary: ClassVar[str] = "leave the operator of a choice that has all the weight"

    @classmethod
    def sites(cls, network: Network) -> Iterator[SettleOperators | Refusal]:
        """Every choice that is closed."""
        for node in network.module.graph.nodes:
            choice = _choice(network.module, node)
            if choice is None:
                continue
            site = network.sites.name(node.all_input_nodes[0])
            if network.sites.find(site) is not node.args[0] or _choice_behind(network, node.args[0]) is not node:
                site = network.sites.name(node)
            weights = _weights(choice)
            place = int(weights.argmax())
            if not _alone(weights, place):
                yield Refusal(site, f"{_seen(choice, weights)}; close the choice on one of them first")
                continue
            mutation = cls(site, choice.names[place])
            yield offered(mutation, partial(refuse_shared_memory, network, node, _kept(node, place)))

    def admit(self, network: Network) -> None:
        """Decline while other operators have a weight."""
        node = self._node(network)
        choice = _choice(network.module, node)
        assert choice is not None
        if choice.alpha.is_meta or self.keep not in choice.names:
            return  # without data the structure is all there is; `rewrite` refuses the name
        weights = _weights(choice)
        if not _alone(weights, choice.names.index(self.keep)):
            raise Declined(f"{_seen(choice, weights)}, and keep={self.keep} is exact where it has all; close it there")

    def rests_on(self, network: Network) -> frozenset[str]:
        """What the weights of the choice follow from."""
        node = self._node(network)
        choice = _choice(network.module, node)
        assert choice is not None
        tensors = [*choice.named_parameters(), *choice.named_buffers()]
        return frozenset(f"{node.target}.{name}" for name, _ in tensors)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Let the readers read the operator that stays."""
        node = self._node(network)
        choice = _choice(network.module, node)
        assert choice is not None
        if self.keep not in choice.names:
            raise MutationError(f"keep={self.keep}: the choice is between {', '.join(choice.names)}")
        return bypass(network, editor, node, _kept(node, choice.names.index(self.keep))), []

    def _node(self, network: Network) -> fx.Node:
        site = network.sites.find(self.site)
        node = site if _choice(network.module, site) is not None else _choice_behind(network, site)
        if node is None:
            raise Declined(f"there is no choice between operators at `{self.site}`")
        return node


def _choice(module: fx.GraphModule, node: fx.Node) -> Choice | None:
    part = called_module(module, node)
    return part if isinstance(part, Choice) else None


def _choice_behind(network: Network, site: object) -> fx.Node | None:
    """The choice whose first operator a node is."""
    if not isinstance(site, fx.Node):
        return None
    found = [user for user in site.users if _choice(network.module, user) is not None and user.args[0] is site]
    return found[0] if len(found) == 1 else None


def _kept(node: fx.Node, place: int) -> fx.Node:
    kept = node.args[place]
    assert isinstance(kept, fx.Node)
    return kept


def _weights(choice: Choice) -> torch.Tensor:
    """The weights as they are without noise."""
    training, choice.training = choice.training, False
    try:
        return choice.weights().detach()
    finally:
        choice.training = training


def _alone(weights: torch.Tensor, place: int) -> bool:
    """Whether one operator has the weight 1 and all others 0."""
    wanted = torch.zeros_like(weights)
    wanted[place] = 1.0
    return torch.equal(weights, wanted)


def _seen(choice: Choice, weights: torch.Tensor) -> str:
    place = int(weights.argmax())
    return f"the strongest, {choice.names[place]}, has a weight of {float(weights[place]):.6g}"
