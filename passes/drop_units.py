"""drop-units: take units away that nothing depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.positions import Removal
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.present import droppable_units, names_over
from graphgrow.rewrite.shrink import drop, plan_drop, set_means


@dataclass(frozen=True)
class DropUnits(Mutation):
    """Take units of a channel group away, everywhere it reaches: the inverse of `widen`.

    That is exact for units which widen could have appended as they are: read with zero weights, or zero themselves;
    over a layer norm at the mean of those that stay, over an RMS norm zero. Otherwise it declines. Exact in eval and
    train mode.

    Attributes:
        group: the channel group.
        units: which units go; at least one stays.
    """

    group: str
    units: tuple[int, ...]
    name: ClassVar[str] = "drop-units"
    summary: ClassVar[str] = "take units away that nothing depends on"
    resizes: ClassVar[bool] = True

    @classmethod
    def sites(cls, network: Network) -> Iterator[DropUnits | Refusal]:
        """Every group with units that go: all of them at once."""
        for group in network.groups:
            if group.frozen is not None:
                yield Refusal(group.name, f"frozen: {group.frozen}")
                continue
            why = "every unit is written and read"
            for units in map(tuple, droppable_units(network, group.space)):
                if len(units) == group.size:
                    why = "nothing depends on any of its units, and one must stay"
                if not 0 < len(units) < group.size:
                    continue
                try:
                    plan_drop(network, Removal.dropping(group.space, units))
                except Declined as declined:
                    why = str(declined)
                    continue
                yield cls(group.name, units)
                break
            else:
                yield Refusal(group.name, why)

    def admit(self, network: Network) -> None:
        """Decline where the numbers do not show that nothing depends on the units."""
        plan_drop(network, self._removal(network))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Take the units away."""
        return drop(network, editor, self._removal(network))

    def rests_on(self, network: Network) -> frozenset[str]:
        """All that writes or reads the units."""
        return names_over(network, network.group(self.group).space)

    def refine(self, network: Network, wide: nn.Module) -> bool:
        """Units at the mean of the others hold it rounded to their dtype: here they get it in float64."""
        removal = self._removal(network)
        try:
            plan = plan_drop(network, removal)
        except Declined:  # a ledger replayed on numbers from before training: there is nothing to refine
            return False
        return set_means(wide, removal, plan)

    def _removal(self, network: Network) -> Removal:
        group = network.group(self.group)
        wrong = [unit for unit in self.units if not 0 <= unit < group.size]
        if wrong:
            raise MutationError(f"units={wrong}: `{group.name}` has units 0 to {group.size - 1}")
        if not 0 < len(set(self.units)) < group.size or len(set(self.units)) < len(self.units):
            raise MutationError(
                f"units={list(self.units)}: name some of the {group.size} units, each once, and not all"
            )
        if group.frozen is not None:
            raise Declined(f"the axis is frozen: {group.frozen}")
        return Removal.dropping(group.space, self.units)
