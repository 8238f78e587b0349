"""drop-branch: take away what is added to a value and is zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import fx

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.network.neighbours import in_front_of, parameters_of
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.closing import is_addition, zero_values
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.erase import bypass, refuse_shared_memory


@dataclass(frozen=True)
class DropBranch(Mutation):
    """Take one operand of an addition away that is exactly zero, with all that only it depends on.

    A branch is zero where its last map or norm, its gate or its layer scale is: the inverse of `deepen`, `add-skip` and
    `add-branch`, for as long as the block is closed. Exact in eval and train mode for inputs on which the branch stays
    finite.

    Attributes:
        site: the addition, as `module:add`.
        operand: which of its two operands goes, 0 or 1.
    """

    site: str
    operand: int = 1
    name: ClassVar[str] = "drop-branch"
    summary: ClassVar[str] = "take away what is added to a value and is zero"

    @classmethod
    def sites(cls, network: Network) -> Iterator[DropBranch | Refusal]:
        """Every addition with an operand that is zero."""
        zeros = zero_values(network.module)
        for node in network.module.graph.nodes:
            if not is_addition(node) or not all(isinstance(arg, fx.Node) for arg in node.args):
                continue
            name = network.sites.name(node)
            operand = next((i for i in (1, 0) if node.args[i] in zeros), None)
            if operand is None:
                yield Refusal(name, "neither operand is known to be zero")
                continue
            yield offered(cls(name, operand), partial(refuse_shared_memory, network, *_sides(node, operand)))

    def admit(self, network: Network) -> None:
        """Decline while the operand is not zero."""
        node = self._addition(network)
        going = node.args[self.operand]
        if any(parameter.is_meta for parameter in network.module.parameters()):
            return  # without data the structure is all there is
        if going not in zero_values(network.module):
            raise Declined(f"`{going}` is not known to be zero: a weight on its way differs from zero")

    def rests_on(self, network: Network) -> frozenset[str]:
        """The parameters in front of the operand that are zero."""
        going = self._addition(network).args[self.operand]
        assert isinstance(going, fx.Node)
        found = {id(p) for node in in_front_of(going) for p in parameters_of(network.module, node) if not p.any()}
        return frozenset(n for n, p in network.module.named_parameters(remove_duplicate=False) if id(p) in found)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Take the branch away."""
        return bypass(network, editor, *_sides(self._addition(network), self.operand)), []

    def _addition(self, network: Network) -> fx.Node:
        node = network.sites.find(self.site)
        if self.operand not in (0, 1):
            raise MutationError(f"operand={self.operand}: an addition has the operands 0 and 1")
        if not is_addition(node) or not all(isinstance(arg, fx.Node) for arg in node.args):
            raise Declined(f"`{self.site}` is no addition of two values")
        return node


def _sides(node: fx.Node, operand: int) -> tuple[fx.Node, fx.Node]:
    """An addition, and the operand that stays."""
    kept = node.args[1 - operand]
    assert isinstance(kept, fx.Node)
    return node, kept
