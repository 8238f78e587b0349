"""merge-units: units that are copies of each other become one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from graphgrow.errors import MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.positions import Removal
from graphgrow.network.network import Network, Step
from graphgrow.planning.growth import Plan
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.copies import classes_of_copies
from graphgrow.rewrite.growable import growable
from graphgrow.rewrite.present import names_over
from graphgrow.rewrite.shrink import merge, plan_merge, refuse_unlike_copies


@dataclass(frozen=True)
class MergeUnits(Mutation):
    """Merge units that are written alike, to the bit, and add up what reads them: the inverse of `split`.

    Exact in eval and train mode; in eval mode alone where dropout stands between the copies and their readers. Right
    after a split the sums are, to the bit, the weights from before.

    Attributes:
        group: the channel group.
        units: the copies that go.
        into: for each of them the unit that it goes into, which stays.
    """

    group: str
    units: tuple[int, ...]
    into: tuple[int, ...]
    name: ClassVar[str] = "merge-units"
    summary: ClassVar[str] = "units that are copies of each other become one"
    resizes: ClassVar[bool] = True

    @classmethod
    def sites(cls, network: Network) -> Iterator[MergeUnits | Refusal]:
        """Every group with copies: all of them at once."""
        for found in growable(network, _everyone_twice):
            if isinstance(found, Refusal):
                yield found
                continue
            group, plan = found
            into = classes_of_copies(network, group.space, plan)
            mutation = cls(group.name, tuple(into), tuple(into.values()))
            if not into:
                yield Refusal(group.name, "no two units are written alike")
                continue
            yield offered(mutation, partial(mutation.admit, network))

    def admit(self, network: Network) -> None:
        """Decline where the units are not copies of each other."""
        removal = self._removal(network)
        refuse_unlike_copies(network, removal, plan_merge(network, removal))

    def rests_on(self, network: Network) -> frozenset[str]:
        """All that writes or reads the units."""
        return names_over(network, network.group(self.group).space)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Merge them."""
        removal = self._removal(network)
        return merge(network, editor, removal, plan_merge(network, removal))

    def _removal(self, network: Network) -> Removal:
        group = network.group(self.group)
        named = (*self.units, *self.into)
        wrong = [unit for unit in named if not 0 <= unit < group.size]
        if wrong:
            raise MutationError(f"{self}: `{group.name}` has units 0 to {group.size - 1}, not {wrong[0]}")
        if not self.units or len(self.units) != len(self.into) or len(set(self.units)) < len(self.units):
            raise MutationError(f"{self}: give as many units as `into` has, each once, at least one")
        if set(self.units) & set(self.into):
            raise MutationError(f"{self}: a unit that goes cannot be one that stays")
        return Removal.merging(group.space, dict(zip(self.units, self.into, strict=True)))


def _everyone_twice(network: Network, name: str) -> Plan:
    """How the group grows when each unit is copied, which says what copies share."""
    space = network.group(name).space
    return plan_merge(network, Removal(space, torch.arange(space.size)))
