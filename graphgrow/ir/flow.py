"""How an operator carries the new units of its operands to its output: fill states and flow expressions.

When a space grows, each tensor over it has, for each occurrence of the space in its axes, a *fill state*: what
its new units hold. An operator's flow is a small expression over its operands; evaluating it gives the state of
the output, and asking it for a state gives the states that its operands would need (the search of the planner;
what is found is always evaluated again, so that correctness rests on evaluation alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from graphgrow.ir.terms import Axes, Space, Term, leaves
from graphgrow.ir.value import Value


class Fill(Enum):
    """What the new units of a tensor hold."""

    FREE = "free"  # appended: anything finite
    ZERO = "zero"  # appended: zero
    MEAN = "mean"  # appended: the mean of the old units
    REPEAT = "repeat"  # appended: what the first of the old units holds, so that it is finite where that is
    COPY = "copy"  # replicated: what the copied unit holds
    SHARE = "share"  # replicated: the copies add up to what the unit held
    NULL = "null"  # all units are zero, whatever grows: a constant of zeros
    EVEN = "even"  # the operand does not have the axis: one value for all units


class Clash(Exception):
    """A flow cannot carry these states; the text says why.

    Attributes:
        wanted: what the operands of `at` would have to be instead, if that is known.
        at: the expression that clashes.
    """

    def __init__(self, text: str, at: Flow | None = None, wanted: Fill | None = None) -> None:
        super().__init__(text)
        self.at, self.wanted = at, wanted


@dataclass(frozen=True)
class Weighted:
    """Appended: what is the mean of the old units once a scale with one number for each unit has multiplied it.

    Attributes:
        by: the scale, a parameter. New units of it hold one number c for all, and new units in front of it the mean of
            the old ones, each weighted by its own number over c.
        scale: whether these are the units of the scale itself.
    """

    by: Value
    scale: bool = False

    @property
    def value(self) -> str:
        """How messages name it."""
        return "scale" if self.scale else "weighted mean"


@dataclass(frozen=True)
class Level:
    """Appended: the mean of all old entries along several axes together, which are normalised as one.

    Attributes:
        spaces: what those axes are made of, but for axes of one entry.
    """

    spaces: frozenset[Space]
    value: str = "level"

    @classmethod
    def over(cls, terms: Axes) -> Level:
        """The mean along all of these axes."""
        return cls(frozenset(leaf for term in terms for leaf in leaves(term) if leaf.size > 1))


@dataclass(frozen=True)
class Common:
    """Appended: the mean of all old entries along one axis, of which the space is only a part, at every occurrence.

    Attributes:
        term: what the axis is made of, in its normal form; along any other axis this is no such mean.
    """

    term: Term
    value: str = "common"


Held = Fill | Weighted | Level | Common
State = tuple[Held, ...]


@dataclass(frozen=True, eq=False)
class Operand:
    """An operand of the node; `axes` are the indices of those of its axes that reach the output."""

    value: Value
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Same:
    """A linear map that is the same for every unit and leaves each alone: views, average pooling, scaling.

    Attributes:
        view: every entry stays as it is, and none is left out: axes are regrouped or put in another order, no more.
    """

    inner: Flow
    view: bool = False


@dataclass(frozen=True)
class Add:
    """A sum of operands."""

    terms: tuple[Flow, ...]


@dataclass(frozen=True)
class Mul:
    """A product, linear in each factor: gates, the rows of a linear map, the filters of a depthwise convolution."""

    factors: tuple[Flow, ...]


@dataclass(frozen=True)
class Choose:
    """Each position is taken from one of the operands that have the axis: cat along another axis, where."""

    terms: tuple[Flow, ...]


@dataclass(frozen=True)
class Pointwise:
    """A function of each unit alone.

    Attributes:
        zero: f(0) = 0.
        total: finite for every finite input; else new units must not be free (0 times inf is NaN).
        total_at_zero: finite at zero, with a finite slope, so that new units of zero are harmless (exp).
        constant_safe: harmless where the new units are constant (a batch norm is not: its gradient
            grows by 1/sqrt(eps); nor is a direction, which zeros do not have).
        flat: its slope at zero is zero, so that no gradient reaches what is zero in front of it (ReLU, a square).
    """

    terms: tuple[Flow, ...]
    zero: bool = False
    total: bool = True
    total_at_zero: bool = False
    constant_safe: bool = True
    flat: bool = False


@dataclass(frozen=True)
class Stack:
    """The occurrences of the operands, one after the other: cat along the axis itself."""

    terms: tuple[Flow, ...]


@dataclass(frozen=True)
class Slice:
    """The occurrences that lie in one part of the axis, behind those of `before`: chunk and split."""

    inner: Flow
    before: Axes
    part: Term


@dataclass(frozen=True)
class Pick:
    """What lies at one position of an axis that is taken apart by number (see `cells`)."""

    inner: Flow
    position: Space


@dataclass(frozen=True)
class Normalised:
    """Layer norm and its like. New units at the mean (layer norm) or at zero (RMS norm) come out as zero, or its bias.

    Attributes:
        inner: what is normalised.
        term: the axes normalised over.
        otherwise: the flow for all other axes.
        affine: the weight, and the bias, by which what is normalised is multiplied and moved: of copies their shares
            make shares.
        bias: the bias, if there is one.
    """

    inner: Flow
    term: Axes
    otherwise: Flow
    affine: tuple[Flow, ...] = ()
    bias: Flow | None = None


@dataclass(frozen=True)
class Centred:
    """A value minus its own mean over one axis: new units at the mean come out as zero.

    Attributes:
        inner: what is centred.
        term: the axis of the mean.
        otherwise: the flow for all other axes.
    """

    inner: Flow
    term: Axes
    otherwise: Flow


@dataclass(frozen=True)
class Zeros:
    """A constant of zeros: its new units are zero too, whatever grows."""


@dataclass(frozen=True)
class Blank:
    """Zeros that lie beside what operands hold, in a stack along an axis of which they are the part of a term."""

    term: Term


@dataclass(frozen=True)
class Drawn:
    """Random numbers that no operand has a part in: new units are like the old ones, and none is a copy of another."""


@dataclass(frozen=True)
class Along:
    """One flow for the spaces of some axes, another for all the rest (cat and split: along, and across)."""

    terms: Axes
    along: Flow
    across: Flow


_OfAxes = Stack | Slice | Pick | Normalised | Centred | Along
WITHOUT_OPERANDS = (Zeros, Blank, Drawn)
Flow = Operand | Same | Add | Mul | Choose | Pointwise | Zeros | Blank | Drawn | _OfAxes


def _without_null(fills: list[Held]) -> list[Held]:
    """The fills beside constants of zeros, which go along with whatever the others do."""
    return [fill for fill in fills if fill is not Fill.NULL] or [Fill.NULL]


def add_fills(fills: list[Held]) -> Held:
    """The fill of a sum."""
    fills = _without_null(fills)
    carried = [f for f in fills if f is not Fill.EVEN]
    if not carried:
        return fills[0]
    if len(set(carried)) == 1 and len(carried) == len(fills):
        return carried[0]
    if Fill.SHARE in carried:
        raise Clash("a sum of shares and of whole values")
    if set(carried) <= {Fill.COPY}:
        return Fill.COPY
    if len(set(carried)) == 1 and (carried[0] in (Fill.MEAN, Fill.REPEAT) or isinstance(carried[0], Common)):
        return carried[0]
    return Fill.FREE


def mul_fills(fills: list[Held]) -> Held:
    """The fill of a product that is linear in each factor."""
    carried = [f for f in fills if f is not Fill.EVEN]
    if not carried:
        return Fill.EVEN
    for vanishing in (Fill.NULL, Fill.ZERO):
        if vanishing in carried:
            return vanishing
    if len(carried) == 1:
        return carried[0]
    if len(carried) == 2 and _scaled(*carried):
        return Fill.MEAN
    if carried.count(Fill.SHARE) > 1:
        raise Clash("a product of two shares")
    if Fill.SHARE in carried:
        return Fill.SHARE
    if set(carried) == {Fill.REPEAT}:
        return Fill.REPEAT
    return Fill.COPY if Fill.COPY in carried else Fill.FREE


def _scaled(one: Held, other: Held) -> bool:
    """Whether two factors are a scale and what is weighted by it."""
    both = isinstance(one, Weighted) and isinstance(other, Weighted)
    return both and one.by is other.by and one.scale is not other.scale  # type: ignore[union-attr]


def choose_fills(fills: list[Held]) -> Held:
    """The fill of a selection among operands."""
    fills = _without_null(fills)
    carried = {f for f in fills if f is not Fill.EVEN}
    if not carried:
        return fills[0]
    if len(carried) == 1 and (Fill.EVEN not in fills or carried <= {Fill.COPY, Fill.REPEAT}):
        return carried.pop()
    if Fill.SHARE in carried:
        raise Clash("a choice between shares and whole values")
    return Fill.FREE


def pointwise_fills(fills: list[Held], flow: Pointwise) -> Held:
    """The fill of a function of each unit alone."""
    if Fill.NULL in fills and set(fills) <= {Fill.NULL, Fill.EVEN}:
        return Fill.NULL if flow.zero and Fill.EVEN not in fills else Fill.EVEN
    carried = {f for f in fills if f not in (Fill.EVEN, Fill.NULL)}
    if not carried:
        return Fill.EVEN
    if Fill.SHARE in carried:
        raise Clash("a non-linear function of shares")
    if carried in ({Fill.COPY}, {Fill.REPEAT}):  # finite where the old units are
        return carried.pop()
    if not flow.total and not (flow.total_at_zero and carried == {Fill.ZERO}):
        raise Clash("it may not be finite on new units", flow, Fill.ZERO if flow.total_at_zero else None)
    if not flow.constant_safe and Fill.ZERO in carried:
        raise Clash("constant units in front of a norm (a batch norm's gradient there grows by 1/sqrt(eps))")
    if flow.zero and carried == {Fill.ZERO} and Fill.EVEN not in fills:
        return Fill.ZERO
    return Fill.FREE
