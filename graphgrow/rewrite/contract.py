"""What a pass is, and the mutation that one configured pass is."""

from __future__ import annotations

import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from graphgrow.errors import Declined
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.roles import Role


@dataclass(frozen=True)
class TensorChange:
    """One tensor that a mutation replaced.

    Attributes:
        names: its qualified names.
        old: the tensor before.
        new: the tensor after.
        carry: `(state, role) -> state`, how optimizer state of its shape follows, by what it holds.
    """

    names: tuple[str, ...]
    old: torch.Tensor
    new: torch.Tensor
    carry: Callable[[torch.Tensor, Role], torch.Tensor]


@dataclass(frozen=True)
class Refusal:
    """A place where a pass looked and does not apply.

    Attributes:
        site: the group, module path or node.
        reason: why not.
        of: the pass by name, where it was listed.
    """

    site: str
    reason: str
    of: str = ""

    def __str__(self) -> str:
        return f"{self.of} at {self.site}: {self.reason}" if self.of else f"{self.site}: {self.reason}"


@dataclass(frozen=True)
class Mutation(ABC):
    """One concrete change of architecture: a pass, configured by its fields.

    A pass is a subclass, in a file of its own in `passes/`: a frozen dataclass whose first field is the site and
    whose other fields are options. It prints as text, `widen(layer1.0.conv1, extra=16)`, and parses back.

    Attributes:
        name: the pass's name in text, with hyphens.
        summary: one line on what it does.
        resizes: whether it changes sizes alone, as `grow` does, and edits nothing before all is read. Several in a row
            are then carried out on one copy, and what the rules found out is kept.
        unasked: whether `graph.mutations()` lists it without being asked for this pass: not where it changes what the
            model is called with or answers, or is for inference alone.
        places: the fields that name a site, as `network.sites` does.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    resizes: ClassVar[bool] = False
    unasked: ClassVar[bool] = True
    places: ClassVar[tuple[str, ...]] = ("site",)

    @classmethod
    @abstractmethod
    def sites(cls, network: Network) -> Iterator[Mutation | Refusal]:
        """The mutations of this pass that apply to the network, one canonical default for each site.

        Places where one might expect the pass to apply, and it does not, come as refusals with the reason.
        """

    @abstractmethod
    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Carry the mutation out on the editor's copy of the network's module.

        Raises:
            Declined: with the node and the reason, if it would not be exact.
            MutationError: if an option makes no sense.
        """

    def admit(self, network: Network) -> None:  # noqa: B027  # most passes depend on the structure alone
        """Check what must hold of the network's numbers; replay does not ask, since it rebuilds the structure alone.

        Raises:
            Declined: if the mutation would not be exact with these numbers.
        """

    def varied(self, network: Network, draw: random.Random) -> Mutation:
        """This mutation of the network with other options, drawn at random; itself where there is nothing to choose.

        A search draws mutations with it: `sites` offers one default for each site, this says what else there is.
        """
        return self

    @property
    def rests_on_numbers(self) -> bool:
        """Whether it is exact for some numbers only, those that `admit` asks for."""
        return type(self).admit is not Mutation.admit

    @property
    def refines(self) -> bool:
        """Whether it has numbers to put right in float64; see `refine`."""
        return type(self).refine is not Mutation.refine

    def rests_on(self, network: Network) -> frozenset[str]:
        """Names of the parameters and buffers for whose numbers `admit` asks."""
        return frozenset()

    def refine(self, network: Network, wide: nn.Module) -> bool:
        """Put exact numbers where the mutation is exact but for the rounding of those that are there.

        Args:
            network: the parent, in its own dtype.
            wide: a copy of the parent's module, or of an ancestor's, in float64; changed in place.

        Returns:
            Whether anything was changed.
        """
        return False

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: the fields, not the graph that it was listed on."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def site_name(self) -> str:
        """Where it acts: the value of its first field."""
        return str(getattr(self, dataclasses.fields(self)[0].name))

    def __str__(self) -> str:
        first, *others = dataclasses.fields(self)
        options = [
            f"{field.name}={render(getattr(self, field.name))}"
            for field in others
            if field.default is dataclasses.MISSING or getattr(self, field.name) != field.default
        ]
        return f"{self.name}({', '.join([str(getattr(self, first.name)), *options])})"


M = TypeVar("M", bound=Mutation)


def offered(mutation: M, check: Callable[[], object]) -> M | Refusal:
    """What `Mutation.sites` yields for one site: the mutation, or a refusal where the check of its conditions declines.

    Args:
        mutation: that would be made there.
        check: raises `Declined`, with the reason, where it cannot be made.
    """
    try:
        check()
    except Declined as declined:
        return Refusal(mutation.site_name, str(declined))
    return mutation


def render(value: Any) -> str:
    """An option's value as text."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_runs(value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


SHORTEST_RUN = 4
"""Whole numbers that follow each other are written `8..15` from so many on."""


def _runs(items: Sequence[Any]) -> Iterator[str]:
    """The items as text, runs of whole numbers that go up by one as `first..last`."""
    start = 0
    while start < len(items):
        stop = start + 1
        while stop < len(items) and type(items[start]) is int and items[stop] == items[stop - 1] + 1:
            stop += 1
        if stop - start >= SHORTEST_RUN:
            yield f"{items[start]}..{items[stop - 1]}"
        else:
            yield from map(render, items[start:stop])
        start = stop
