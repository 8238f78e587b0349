"""add-heads: more attention heads, closed at the start."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.positions import Units
from graphgrow.ir.terms import Space
from graphgrow.network.attentions import Attention, attentions
from graphgrow.network.network import Network, Step
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.grow import grow


@dataclass(frozen=True)
class AddHeads(Mutation):
    """Add heads to an attention: fresh queries, keys and values, read by output columns of zero.

    Where several query heads share one key and value head (Ainslie et al., "GQA", 2023, arXiv:2305.13245), a head is
    a whole group: a key, a value, and its queries; with `shared` it is one more query head in each group, which reads
    the keys and values that are there. The width of a head, and so the scale of the scores, stays. Exact in eval and
    train mode.

    Attributes:
        site: the module in whose forward the attention stands, or the attention as `module:operator`.
        extra: how many heads, at least 1.
        shared: whether the new query heads share the present keys and values.
    """

    site: str
    extra: int = 1
    shared: bool = False
    name: ClassVar[str] = "add-heads"
    summary: ClassVar[str] = "more attention heads, closed at the start"

    @classmethod
    def sites(cls, network: Network) -> Iterator[AddHeads | Refusal]:
        """Every attention: one head more, and one in each group where query heads share keys and values."""
        for attention in attentions(network):
            choices = [cls(attention.name)]
            if len(attention.spaces) > 1:
                choices.append(cls(attention.name, shared=True))
            for mutation in choices:
                yield offered(mutation, partial(mutation._plan, network, attention))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Add the heads."""
        if self.extra <= 0:
            raise MutationError(f"extra={self.extra}: at least 1 head must be added")
        return grow(network, editor, self._plan(network, self._attention(network)), generator)

    def _plan(self, network: Network, attention: Attention) -> Plan:
        space = self._space(attention)
        appended = torch.zeros(max(self.extra, 1), dtype=torch.int64)
        units = Units(space, torch.cat([torch.arange(space.size), appended]))
        return plan_growth(network.analysis, units, Kind.APPEND)

    def _space(self, attention: Attention) -> Space:
        spaces = attention.spaces
        if not spaces:
            raise Declined(f"`{attention.node.name}` has no axis of heads: its scores are not (batch, heads, ...)")
        if self.shared and len(spaces) == 1:
            raise Declined(f"in `{self.site}` every query head has a key and a value head of its own")
        return spaces[-1] if self.shared else spaces[0]

    def _attention(self, network: Network) -> Attention:
        found = list(attentions(network))
        for attention in found:
            if self.site in (attention.name, network.sites.name(attention.node)):
                return attention
        if not found:
            raise Declined("there is no attention in this graph that is known as one")
        names = [attention.name for attention in found]
        close = difflib.get_close_matches(self.site, names, 3) or names[:3]
        raise MutationError(f"there is no attention `{self.site}`; did you mean {' or '.join(map(repr, close))}?")
