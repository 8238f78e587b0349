"""What an operator's rule states about one node: axes, flows, requirements, and the sizes it restates.

Rules write facts and nothing else; the planner reads them to see which growth is exact, and the editor to put
literals and module attributes right. A rule never rewrites anything itself, so each can be checked alone.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from torch import fx

from graphgrow.ir.bounds import A_SIZE, UNBOUNDED, Bounds
from graphgrow.ir.flow import Flow
from graphgrow.ir.quasilinear import QuasiLinear
from graphgrow.ir.terms import Axes, Space, Term, leaves
from graphgrow.ir.value import Value


@dataclass(frozen=True)
class Slot:
    """A place that holds a number: an attribute of the node's module, or an argument of the node.

    Attributes:
        path: (name,) of the attribute; or ("args", i, ...) / ("kwargs", name, ...).
        on_module: which of the two.
    """

    path: tuple[Any, ...]
    on_module: bool


@dataclass(frozen=True)
class Contraction:
    """A sum over a product of two operands along one axis: x W, or q k."""

    left: Value
    left_axis: int
    right: Value
    right_axis: int
    term: Term


@dataclass(frozen=True)
class Summation:
    """A sum of one operand along one axis."""

    value: Value
    axis: int


class StatisticKind(Enum):
    """What a statistic makes of all units of an axis."""

    MEAN = "mean"
    VARIANCE = "variance"
    DEVIATION = "standard deviation"
    NORM = "norm"
    SPECTRAL = "largest singular value"
    EXTREME = "extreme"


@dataclass(frozen=True)
class Statistic:
    """A number that is taken of all units along axes.

    Attributes:
        kind: what it is.
        value: of what it is taken.
        axes: along which axes.
        output: what depends on it and can be rescaled as a whole, so that growth does not show: the statistic itself,
            or what was divided by it.
        parameter: the correction of a variance (1 is Bessel's), the power of a norm.
        inverse: whether the output was divided by the number.
        eps: where the least number that is divided by stands, if there is one; it grows as the statistic does.
        eps_value: that number.
    """

    kind: StatisticKind
    value: Value
    axes: tuple[int, ...]
    output: Value
    parameter: float = 0.0
    inverse: bool = False
    eps: Slot | None = None
    eps_value: float = 0.0


@dataclass(frozen=True)
class Storing:
    """A buffer that the forward overwrites: in the next call it holds what it takes in now.

    Attributes:
        buffer: what is overwritten.
        value: what it takes in, with the same axes.
    """

    buffer: Value
    value: Value


class NormKind(Enum):
    """What a normalisation subtracts and divides by."""

    LAYER = "layer norm"
    RMS = "RMS norm"
    GROUP = "group norm"


@dataclass(frozen=True)
class Normalisation:
    """Statistics over axes: the terms, the parameters that scale and shift the result, and where eps stands.

    The result is scaled by offset + weight.
    A norm without a weight has its `output` rescaled instead.
    """

    kind: NormKind
    value: Value
    axes: tuple[int, ...]
    term: Axes
    weight: Value | None
    bias: Value | None
    eps: Slot | None
    eps_value: float
    offset: float = 0.0
    output: Value | None = None


@dataclass(frozen=True)
class Noise:
    """Each element is dropped by itself with probability p in train mode; in eval mode too, if that is `always` so."""

    value: Value
    p: float
    always: bool = False


@dataclass(frozen=True)
class SizeSlot:
    """A slot that restates sizes: one term, or a tuple of terms, whose sizes it must keep.

    Attributes:
        slot: where it stands.
        terms: what it restates.
        as_tuple: whether it holds a tuple of numbers.
        within: terms whose growth moves it too (a place that is counted from the end of an axis).
    """

    slot: Slot
    terms: Axes
    as_tuple: bool = False
    within: Axes = ()


@dataclass(frozen=True)
class Pin:
    """A slot whose value must stay what it is when the sizes it came from change (attention's default scale)."""

    slot: Slot
    terms: Axes
    value: Any


@dataclass(frozen=True)
class Cut:
    """A place at which an axis is cut by number: it is the same place in every call only where `anchor` keeps its size.

    Attributes:
        whole: the axis.
        anchor: what lies between the place and the end of the axis that it is counted from.
    """

    whole: Term
    anchor: Axes


@dataclass(eq=False)
class NodeFacts:
    """All that is known about one node.

    Attributes:
        node: the node.
        output: its value: a `Value`, a nested tuple or list of values, or a plain Python object.
        flows: for each output value, how it comes from the operands.
        draws: output values that are random numbers, one for each unit in each call, in whatever mode.
        storings: what it stores in buffers.
        frozen: axes that its rule froze, along which it may do anything.
        split_sizes: the parts of a chunk or split along an axis, if the node is one.
    """

    node: fx.Node
    module_path: str | None = None
    operands: list[Value] = field(default_factory=list)
    output: Any = None
    flows: list[tuple[Value, Flow]] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    summations: list[Summation] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    normalisations: list[Normalisation] = field(default_factory=list)
    noises: list[Noise] = field(default_factory=list)
    draws: list[Value] = field(default_factory=list)
    storings: list[Storing] = field(default_factory=list)
    frozen: list[Term] = field(default_factory=list)
    sizes: list[SizeSlot] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    split_parts: Axes = ()
    split_axis: int = 0
    cuts: list[Cut] = field(default_factory=list)

    @functools.cached_property
    def mixed(self) -> frozenset[Space]:
        """The axes of positions (see `cells`) whose positions it sums, counts or moves, by what they were cut from.

        Of what it puts out no position holds what one position of an operand does.
        """
        sides = ((c.left.axes[c.left_axis], c.right.axes[c.right_axis]) for c in self.contractions)
        return self.unaligned | _cut_from(term for pair in sides for term in pair)

    @functools.cached_property
    def unaligned(self) -> frozenset[Space]:
        """Those of `mixed` whose positions in one factor of a product meet all of those in the other."""
        terms = list(self.frozen)
        terms += [summation.value.axes[summation.axis] for summation in self.summations]
        terms += [statistic.value.axes[axis] for statistic in self.statistics for axis in statistic.axes]
        terms += [term for norm in self.normalisations for term in norm.term]
        for value in flatten_values(self.output):  # along two axes, as scores have them: one is of either factor
            count = Counter(family for term in value.axes for family in _cut_from((term,)))
            terms += [term for term in value.axes if any(count[family] > 1 for family in _cut_from((term,)))]
        return _cut_from(terms)

    def values(self) -> Iterator[Value]:
        """Every value the node reads or makes, each at least once."""
        yield from self.operands
        yield from flatten_values(self.output)


def _cut_from(terms: Iterable[Term]) -> frozenset[Space]:
    """What the positions along some axes were cut from."""
    return frozenset(leaf.of for term in terms for leaf in leaves(term) if leaf.of is not None)


def flatten_values(output: Any) -> Iterator[Value]:
    """The values within a nested output."""
    if isinstance(output, Value):
        yield output
    elif isinstance(output, (tuple, list)):
        for item in output:
            yield from flatten_values(item)
    elif isinstance(output, dict):
        for item in output.values():
            yield from flatten_values(item)


class Extent(int):
    """A size that the graph computes, with the terms that it came from, and its bounds over all inputs.

    Where it comes from one size alone, and evenly, its `law` says how.
    """

    terms: Axes
    bounds: Bounds
    law: QuasiLinear | None

    def __new__(cls, value: int, terms: Axes, bounds: Bounds = A_SIZE, law: QuasiLinear | None = None) -> Extent:
        """The integer `value`, computed from the sizes of axes with these terms."""
        extent = super().__new__(cls, value)
        extent.terms, extent.bounds, extent.law = terms, bounds, law
        return extent

    @classmethod
    def of(cls, term: Term) -> Extent:
        """The size of an axis."""
        return cls(term.size, (term,), law=QuasiLinear(term))

    def __getnewargs__(self) -> tuple[int, Axes, Bounds, QuasiLinear | None]:  # type: ignore[override]  # int has one
        """What copies and pickles make it of."""
        return int(self), self.terms, self.bounds, self.law


@dataclass(frozen=True)
class Derived:
    """A number computed from sizes by more than looking: its value, the terms behind it, its bounds over all inputs.

    Where it comes from one size alone, and evenly, its `law` says how.
    """

    value: Any
    terms: Axes
    bounds: Bounds = UNBOUNDED
    law: QuasiLinear | None = None


def varies(number: Any) -> bool:
    """Whether a number came from sizes that other inputs may have otherwise: those of axes that are frozen."""
    return isinstance(number, (Extent, Derived)) and any(leaf.frozen for term in number.terms for leaf in leaves(term))
