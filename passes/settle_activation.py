"""settle-activation: the clean-up of a swap, once its blend has arrived at one side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx, nn

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.layers import Blend
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.exchange import exchange

KEEPS = {"new": 1.0, "old": 0.0}  # which activation stays, and the share s at which nothing changes


@dataclass(frozen=True)
class SettleActivation(Mutation):
    """Leave the one activation of a blend that counts: the new one where s is 1, the old one where s is 0.

    A PReLU of one slope, to which the way from a ReLU is direct, is a ReLU again with `keep=old` while that is 0.

    Exact in eval and train mode. Anywhere between it would change the function and declines; move s to 1 first:
    `with torch.no_grad(): blend.s.fill_(1.0)`.

    Which one is left is part of the mutation: a ledger is replayed on weights that were never trained, where s is 0.

    Attributes:
        site: the site of the blend.
        keep: `new` or `old`.
    """

    site: str
    keep: str = "new"
    name: ClassVar[str] = "settle-activation"
    summary: ClassVar[str] = "remove the side of an activation swap that has no share any more"

    @classmethod
    def sites(cls, network: Network) -> Iterator[SettleActivation | Refusal]:
        """Every blend that has arrived, and every PReLU of slope 0."""
        for node in network.module.graph.nodes:
            part = called_module(network.module, node)
            if not isinstance(part, (Blend, nn.PReLU)):
                continue
            name = network.sites.name(node)
            if isinstance(part, nn.PReLU):
                if _slope(part) == 0.0:
                    yield cls(name, "old")
                continue
            share = _share(part)
            if share in (0.0, 1.0):
                yield cls(name, "new" if share else "old")
            else:
                yield Refusal(name, f"{_seen(share)}; at 0 or 1 one of the two activations can go")

    def admit(self, network: Network) -> None:
        """Decline while the other activation has a share."""
        part = _passage(network.module, network.sites.find(self.site))
        if isinstance(part, nn.PReLU):
            if _slope(part) not in (None, 0.0):
                raise Declined(f"the slope is {_slope(part)!r}, and a ReLU is exact at 0 alone")
            return
        share = _share(part)
        if self.keep in KEEPS and share not in (None, KEEPS[self.keep]):  # without data the structure is all there is
            wanted = KEEPS[self.keep]
            raise Declined(f"{_seen(share)}, and keep={self.keep} is exact at {wanted:g} alone; move it there first")

    def rests_on(self, network: Network) -> frozenset[str]:
        """The share, or the slope."""
        node = network.sites.find(self.site)
        name = "weight" if isinstance(_passage(network.module, node), nn.PReLU) else "s"
        return frozenset({f"{node.target}.{name}"})

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Put the activation that counts in the blend's place."""
        if self.keep not in KEEPS:
            raise MutationError(f"keep={self.keep}: there are {' and '.join(KEEPS)}")
        node = network.sites.find(self.site)
        part = _passage(editor.module, node)
        if isinstance(part, nn.PReLU):
            if self.keep == "new":
                raise MutationError(f"keep=new: `{self.site}` is the new one, a PReLU, already")
            return exchange(network, editor, node, nn.ReLU(), self.site, self.name), []
        kept = part.new if self.keep == "new" else part.old
        return exchange(network, editor, node, kept, self.site, self.name), []


def _passage(graph: nn.Module, node: fx.Node) -> Blend | nn.PReLU:
    """The blend of a node, or the PReLU of one slope that stands for one."""
    found = called_module(graph, node)
    if isinstance(found, Blend) or (type(found) is nn.PReLU and found.num_parameters == 1):
        return found
    raise Declined("there is no blend of two activations here")


def _slope(part: nn.PReLU) -> float | None:
    """The one slope of a PReLU; None for several, or on the meta device."""
    return None if part.num_parameters > 1 or part.weight.is_meta else float(part.weight.detach())


def _share(blend: Blend) -> float | None:
    """The share of the new activation; None on the meta device."""
    return None if blend.s.is_meta else float(blend.s.detach())


def _seen(share: float | None) -> str:
    known = "not known, on the meta device" if share is None else repr(share)
    return f"the share s of the new activation is {known}"
