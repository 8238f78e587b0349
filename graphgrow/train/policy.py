"""What a growth policy is: which signals it wants, and what it would do on them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import torch

from graphgrow.errors import Declined, TrainingError
from graphgrow.graph import Graph
from graphgrow.rewrite.registry import classes_of
from graphgrow.signals.activity import Activity
from graphgrow.signals.gradients import UnitGradients
from graphgrow.signals.gradmax import GrowthDirections
from graphgrow.signals.skips import SkipScore
from graphgrow.signals.watch import Signal
from graphgrow.train.start import Start

PACKAGE = "graphgrow.train.policies"


@dataclass(frozen=True)
class Evidence:
    """What was measured since the last round; a part that the policy did not ask for is empty.

    Attributes:
        activity: by group.
        gradients: by group.
        directions: by group.
        skips: the best first.
        held_out: by the mutation of a connection, the share of its held-out gradient that its training gradient agrees
            with (their cosine); empty where nothing was held out.
        stage: growths before this one.
    """

    activity: Mapping[str, Activity] = field(default_factory=dict)
    gradients: Mapping[str, UnitGradients] = field(default_factory=dict)
    directions: Mapping[str, GrowthDirections] = field(default_factory=dict)
    skips: tuple[SkipScore, ...] = ()
    held_out: Mapping[str, float] = field(default_factory=dict)
    stage: int = 0


@dataclass(frozen=True)
class Candidate:
    """Mutations that a policy would make together, all or none.

    Attributes:
        mutations: in text form, in order.
        numbers: what speaks for them, by name.
        start: how what is new starts.
        listed: whether it was asked for as it is, so that the policy's `growth` is no limit to it.
    """

    mutations: tuple[str, ...]
    numbers: Mapping[str, float]
    start: Start = Start()  # noqa: RUF009 - frozen
    listed: bool = False


@dataclass(frozen=True)
class GrowthPolicy(ABC):
    """Turns signals into mutations. A policy is a file in `policies/` with one frozen dataclass.

    Attributes:
        growth: by how much one stage may raise the FLOPs of a sample, as a factor; no limit to stages that are listed.
        most: candidates that one stage may take.
        name: by which it is called.
        summary: one line on what it does.
        wants: what there has to be for it to do anything, in words.
    """

    growth: float = 2.0
    most: int = 64
    name: ClassVar[str]
    summary: ClassVar[str]
    wants: ClassVar[str] = "something that can grow"

    def signals(self, graph: Graph, seed: int) -> Mapping[str, Signal]:  # noqa: ARG002, RUF100
        """The signals it wants measured, under the names of the parts of `Evidence`."""
        return {}

    @property
    def listed(self) -> int:
        """How many stages it was told to make; 0 where it decides by itself."""
        return 0

    def require(self, graph: Graph) -> None:  # noqa: B027 - most policies are told nothing
        """Refuse a network, before it is trained, on which what the policy was told to do cannot be done.

        Raises:
            TrainingError: names it, with the reason.
        """

    @abstractmethod
    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """What it would do, what it wants most first; as many as fit are taken."""

    def options(self) -> dict[str, Any]:
        """Its fields, for records."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}


def paired(graph: Graph, group: str, count: int) -> tuple[str, ...]:
    """Mutations that add so many fresh units in pairs: alike in front, and read with v and -v.

    That preserves the function, and unlike units that are read with zero they learn at full pace from the first step
    on. Where copies of single units are not admitted (a layer norm wants all or none), they are plain fresh units.
    """
    old, pairs = graph.group(group).size, count - count // 2
    widen = f"widen({group}, extra={pairs})"
    if count < 2:
        return (widen,)
    both = widen, f"split({group}, units={list(range(old, old + count // 2))}, apart=true)"
    try:
        graph.cost(both)
    except Declined:
        return (f"widen({group}, extra={count})",)
    return both


def uniform_shares(growth: float) -> Iterator[float]:
    """Shares by which all groups may widen together in one stage, the largest first.

    The FLOPs of a layer go with the product of two widths.
    """
    share = growth**0.5 - 1
    yield from (share, share / 2, share / 4)


@cache
def policies() -> dict[str, type[GrowthPolicy]]:
    """Every policy by its name.

    Raises:
        TypeError: if a file of the folder does not hold exactly one policy, or not under its own name.
    """
    return classes_of(PACKAGE, GrowthPolicy, "policy")  # type: ignore[type-abstract]


def make_policy(policy: GrowthPolicy | str, **options: Any) -> GrowthPolicy:
    """A policy by name, with options.

    Raises:
        TrainingError: if there is none of that name, or it has no such option.
    """
    if isinstance(policy, GrowthPolicy):
        return policy
    known = policies()
    if policy not in known:
        raise TrainingError(f"there is no policy `{policy}`; there are {', '.join(known)}")
    fields = {item.name for item in dataclasses.fields(known[policy])}
    unknown = sorted(set(options) - fields)
    if unknown:
        raise TrainingError(
            f"the policy `{policy}` has no option {', '.join(unknown)}; it has {', '.join(sorted(fields))}"
        )
    lists = {name: _frozen(value) for name, value in options.items()}
    return known[policy](**lists)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
