"""widen: append free units to a channel group, everywhere it reaches."""

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
class Widen(Mutation):
    """Append `extra` units to a channel group.

    Incoming weights start fresh at the new fan (He et al. 2015), reading weights at zero. Over a layer norm the new
    units start at the mean of the old ones, over an RMS norm at zero, and what reads behind it starts fresh. Exact
    in eval and train mode (Net2Net's promise, Chen et al. 2016, with free new units).

    Attributes:
        group: the channel group.
        extra: how many units, at least 1; they count in the named group.
    """

    group: str
    extra: int
    name: ClassVar[str] = "widen"
    summary: ClassVar[str] = "append free units to a channel group"
    resizes: ClassVar[bool] = True

    @classmethod
    def sites(cls, network: Network) -> Iterator[Widen | Refusal]:
        """Every group that can grow, by half its size."""
        for found in growable(network, cls._plan):
            yield found if isinstance(found, Refusal) else cls(found[0].name, max(1, found[0].size // 2))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Append the units."""
        if self.extra <= 0:
            raise MutationError(f"extra={self.extra}: at least 1 unit must be added")
        units = _appended(network, self.group, self.extra)
        return grow(network, editor, plan_growth(network.analysis, units, Kind.APPEND), generator)

    def varied(self, network: Network, draw: random.Random) -> Widen:
        """By one unit up to the size of the group."""
        return replace(self, extra=draw.randint(1, max(1, network.group(self.group).size)))

    @staticmethod
    def _plan(network: Network, name: str) -> Plan:
        return plan_growth(network.analysis, _appended(network, name, 1), Kind.APPEND)


def _appended(network: Network, name: str, extra: int) -> Units:
    return Units.appended(network.group(name).space, extra)
