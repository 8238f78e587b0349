"""split: duplicate units of a channel group and share out what reads them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from graphgrow.errors import MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.positions import Units
from graphgrow.network.network import Network, Step
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.grow import grow
from graphgrow.rewrite.growable import growable


@dataclass(frozen=True)
class Split(Mutation):
    """Duplicate units: identical copies in front, each reading weight shared among them.

    A reading weight w becomes fl(w u) and w - fl(w u), with u drawn from [1/2, 1] for each weight: by Sterbenz'
    lemma their sum is w to the bit, and unlike equal halves they part under training. Exact in eval and train mode;
    in eval mode alone where dropout stands between the copies and their readers, since it draws a mask for each.

    Copies that are read alike get gradients of one direction and part slowly, the more so under optimizers that
    normalise them. With `apart`, u is drawn from [1/2, 2], where the lemma still holds, so that most copies are read
    with opposite signs; and what is read with zero is then read with v and -v, v as large as a fresh weight (He et
    al. 2015).

    Attributes:
        group: the channel group.
        units: which units to duplicate; none given: all.
        copies: how many of each there will be, at least 2.
        apart: whether the copies are pulled apart.
    """

    group: str
    units: tuple[int, ...] = ()
    copies: int = 2
    apart: bool = False
    name: ClassVar[str] = "split"
    summary: ClassVar[str] = "duplicate units and share out what reads them"
    resizes: ClassVar[bool] = True

    @classmethod
    def sites(cls, network: Network) -> Iterator[Split | Refusal]:
        """Every group whose units can be duplicated, all of them."""
        for found in growable(network, cls._plan):
            yield found if isinstance(found, Refusal) else cls(found[0].name)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Duplicate the units."""
        return grow(network, editor, self._planned(network), generator)

    def varied(self, network: Network, draw: random.Random) -> Split:
        """Some of the units, in two."""
        size = network.group(self.group).size
        return replace(self, units=tuple(sorted(draw.sample(range(size), draw.randint(1, size)))))

    @staticmethod
    def _plan(network: Network, name: str) -> Plan:
        return Split(name)._planned(network)

    def _planned(self, network: Network) -> Plan:
        group = network.group(self.group)
        if self.copies < 2:
            raise MutationError(f"copies={self.copies}: a split makes at least 2")
        wrong = [unit for unit in self.units if not 0 <= unit < group.size]
        if wrong:
            raise MutationError(f"units={wrong}: `{group.name}` has units 0 to {group.size - 1}")
        if len(set(self.units)) < len(self.units):
            raise MutationError(f"units={list(self.units)} names a unit twice; use copies to make more than two")
        chosen = torch.tensor(self.units or range(group.size), dtype=torch.int64)
        source = torch.cat([torch.arange(group.size), chosen.repeat(self.copies - 1)])
        plan = plan_growth(network.analysis, Units(group.space, source), Kind.REPLICATE)
        plan.apart = self.apart
        return plan
