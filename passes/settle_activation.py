"""settle-activation: the clean-up of a swap, once its blend has arrived at one side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx, nn

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.layers import Blend
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.exchange import exchange
from graphgrow.rewrite.network import Network, Step

KEEPS = {"new": 1.0, "old": 0.0}  # which activation stays, and the share s at which nothing changes


@dataclass(frozen=True)
class SettleActivation(Mutation):
    """Leave the one activation of a blend that counts: the new one where s is 1, the old one where s is 0.

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
        """Every blend that has arrived."""
        for node in network.module.graph.nodes:
            if node.op != "call_module" or not isinstance(network.module.get_submodule(str(node.target)), Blend):
                continue
            name = network.sites.name(node)
            share = _share(_blend(network.module, node))
            if share in (0.0, 1.0):
                yield cls(name, "new" if share else "old")
            else:
                yield Refusal(name, f"{_seen(share)}; at 0 or 1 one of the two activations can go")

    def admit(self, network: Network) -> None:
        """Decline while the other activation has a share."""
        share = _share(_blend(network.module, network.sites.find(self.site)))
        if self.keep in KEEPS and share not in (None, KEEPS[self.keep]):  # without data the structure is all there is
            wanted = KEEPS[self.keep]
            raise Declined(f"{_seen(share)}, and keep={self.keep} is exact at {wanted:g} alone; move it there first")

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Put the activation that counts in the blend's place."""
        if self.keep not in KEEPS:
            raise MutationError(f"keep={self.keep}: there are {' and '.join(KEEPS)}")
        node = network.sites.find(self.site)
        blend = _blend(editor.module, node)
        kept = blend.new if self.keep == "new" else blend.old
        return exchange(network, editor, node, kept, self.site, self.name), []


def _blend(graph: nn.Module, node: fx.Node) -> Blend:
    found = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(found, Blend):
        raise Declined("there is no blend of two activations here")
    return found


def _share(blend: Blend) -> float | None:
    """The share of the new activation; None on the meta device."""
    return None if blend.s.is_meta else float(blend.s.detach())


def _seen(share: float | None) -> str:
    known = "not known, on the meta device" if share is None else repr(share)
    return f"the share s of the new activation is {known}"
