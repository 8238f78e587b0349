"""What a rule is given: one call of an operator, and the means to state facts about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir import flow as fl
from graphgrow.ir.cells import take_apart
from graphgrow.ir.facts import (
    Contraction,
    Cut,
    Derived,
    Extent,
    NodeFacts,
    Noise,
    Normalisation,
    NormKind,
    Pin,
    SizeSlot,
    Slot,
    Statistic,
    StatisticKind,
    Storing,
    Summation,
)
from graphgrow.ir.terms import Axes, Reason, Space, Term, freeze, product, unify
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.registry import plain_of

BY_POSITION = ("a table that is indexed by position", "sliced by position")
"""Why rows of a table may not grow, but for new ones behind them that nobody asks for yet."""


class RuleDeclined(Exception):
    """A rule does not know this form of its operator; its operands are frozen with the text as the reason."""


class Call:
    """One node under analysis.

    Attributes:
        node: the node.
        facts: what has been stated about it so far.
        module: the module that it calls, if it does.
        meta: the node's example value on the meta device (a tensor, or nested ones).
    """

    def __init__(
        self,
        node: fx.Node,
        facts: NodeFacts,
        module: nn.Module | None,
        parameter: Callable[[str], Value | None],
        meta: Any,
        free: Collection[Space] = (),
    ) -> None:
        self._free = free
        self.node, self.facts, self.module, self.meta = node, facts, module, meta
        self._parameter = parameter

    @property
    def site(self) -> str:
        """The module path of the call where there is one, else the node's name."""
        return self.facts.module_path or self.node.name

    @property
    def name(self) -> str:
        """The name of the function or method that is called; of one in place, that of the plain one."""
        target: Any = plain_of(self.node.target)
        return target if isinstance(target, str) else target.__name__

    # -- values and axes ---------------------------------------------------------------------------------

    def parameter(self, name: str, fresh: Fresh = Fresh.LIKE, fan: Sequence[int] = ()) -> Value | None:
        """The module's own parameter or buffer of that name, None where the module has none."""
        value = self._parameter(name)
        if value is not None:
            self.facts.operands.append(value)
            self.starts(value, fresh, fan)
        return value

    def weight(self, name: str, fresh: Fresh = Fresh.LIKE, fan: Sequence[int] = ()) -> Value:
        """A parameter that the module must have."""
        value = self.parameter(name, fresh, fan)
        if value is None:
            raise RuleDeclined(f"has no `{name}`")
        return value

    def starts(self, value: Value | None, fresh: Fresh, fan: Sequence[int] = ()) -> None:
        """Say how free new entries of a parameter start; without effect on other values."""
        if value is not None and value.parameter and not value.fan:
            value.fresh, value.fan = fresh, tuple(fan)

    def starts_bias(self, bias: Value | None, weight: Value) -> None:
        """Free biases start at zero, but beside a weight that is computed from others, whose new rows may be zero.

        A unit of zero that is read with zero would never learn, nor would one of a negative bias behind a ReLU.
        """
        self.starts(bias, Fresh.ZEROS if weight.parameter else Fresh.ABOVE)

    def output(self, axes: Iterable[Term], flow: fl.Flow | None = None, index: int | None = None) -> Value:
        """A new output value with these axes, and how it comes from the operands."""
        name = self.node.name if index is None else f"{self.node.name}[{index}]"
        value = Value(tuple(axes), name)
        if flow is not None:
            self.facts.flows.append((value, flow))
        return value

    def space(self, size: int, label: str = "") -> Space:
        """A new axis variable."""
        return Space(int(size), label)

    def fixed(self, size: int, why: str) -> Space:
        """A new axis that can never grow."""
        return Space(int(size), frozen=self.reason(why))

    def reason(self, text: str) -> Reason:
        """A reason that names this call."""
        return Reason(self.site, text)

    def freeze(self, terms: Iterable[Term], why: str) -> None:
        """Freeze axes with the reason; not rows that the analysis leaves free, for being looked up by position."""
        free = self._free if why in BY_POSITION else ()
        frozen = [term for term in terms if term not in free]
        self.facts.frozen.extend(frozen)
        freeze(frozen, self.reason(why))

    def take_apart(self, term: Term, why: str) -> tuple[Space, ...] | None:
        """Freeze an axis that is indexed by constants, position by position where there are few; see `cells`."""
        return take_apart(term, self.reason(why))

    def same(self, a: Term, b: Term, why: str = "axes that cannot be made equal") -> None:
        """State that two axes are one."""
        if a.size != b.size:
            raise RuleDeclined(f"axes of sizes {a.size} and {b.size} meet")
        unify(a, b, self.reason(why))

    def factor(self, term: Term, sizes: Sequence[int], labels: Sequence[str] = ()) -> list[Space]:
        """Cut an axis into factors of these sizes (slowest first) and return them."""
        labels = list(labels) or [""] * len(sizes)
        spaces = [self.space(size, label) for size, label in zip(sizes, labels, strict=True)]
        self.same(term, product(spaces), "a cut into factors that does not fit")
        return spaces

    def axis(self, value: Value, dim: int) -> int:
        """A dimension counted from the front."""
        return int(dim) % len(value.axes) if value.axes else 0

    # -- flows -------------------------------------------------------------------------------------------

    def operand(self, value: Value, drop: Iterable[int] = ()) -> fl.Operand:
        """A value within a flow, without the axes that do not reach the output."""
        dropped = {self.axis(value, dim) for dim in drop}
        return fl.Operand(value, tuple(i for i in range(len(value.axes)) if i not in dropped))

    def same_flow(self, value: Value) -> fl.Flow:
        """The flow of any linear map that leaves each unit alone."""
        return fl.Same(self.operand(value))

    def view_flow(self, value: Value) -> fl.Flow:
        """The flow of a view that holds all entries as they are: regrouped, or along axes in another order."""
        return fl.Same(self.operand(value), view=True)

    def plus_bias(self, flow: fl.Flow, bias: Value | None) -> fl.Flow:
        """The flow with a bias added, if there is one."""
        return flow if bias is None else fl.Add((flow, self.operand(bias)))

    # -- requirements --------------------------------------------------------------------------------------

    def contract(self, left: Value, left_axis: int, right: Value, right_axis: int, term: Term | None = None) -> None:
        """State a sum over the product of two operands along one axis (of `left`, unless a term is given)."""
        left_axis, right_axis = self.axis(left, left_axis), self.axis(right, right_axis)
        over = left.axes[left_axis] if term is None else term
        self.same(over, right.axes[right_axis])
        self.facts.contractions.append(Contraction(left, left_axis, right, right_axis, over))

    def contract_within(self, left: Value, left_axis: int, right: Value, right_axis: int, over: Term) -> None:
        """State a sum over a part of an axis that both operands have whole."""
        left_axis, right_axis = self.axis(left, left_axis), self.axis(right, right_axis)
        self.facts.contractions.append(Contraction(left, left_axis, right, right_axis, over))

    def sum_over(self, value: Value, axis: int) -> None:
        """State a sum of one operand along an axis."""
        self.facts.summations.append(Summation(value, self.axis(value, axis)))

    def statistic(
        self,
        kind: StatisticKind,
        value: Value,
        axes: Iterable[int],
        output: Value,
        parameter: float = 0.0,
        inverse: bool = False,
        eps: Slot | None = None,
        eps_value: float = 0.0,
    ) -> None:
        """State that a number is taken of all units along axes, and what can be rescaled where growth changes it."""
        self.facts.statistics.append(Statistic(kind, value, tuple(axes), output, parameter, inverse, eps, eps_value))

    def normalise(
        self,
        kind: NormKind,
        value: Value,
        axes: Sequence[int],
        term: Axes,
        weight: Value | None,
        bias: Value | None,
        eps: Slot | None,
        eps_value: float,
        offset: float = 0.0,
        output: Value | None = None,
    ) -> None:
        """State that statistics are taken over these axes; without a weight, the output itself can be rescaled."""
        self.facts.normalisations.append(
            Normalisation(kind, value, tuple(axes), tuple(term), weight, bias, eps, eps_value, offset, output)
        )

    def noise(self, value: Value, p: float) -> None:
        """State that elements are dropped one by one: by a module in train mode, by a function in whatever mode."""
        if p > 0:
            self.facts.noises.append(Noise(value, p, always=self.module is None))

    def stores(self, buffer: Value, value: Value) -> None:
        """A buffer takes in a value, whose axes are its own."""
        if value.infinite:
            self.freeze(buffer.axes, "a buffer that may take in infinite numbers")
        self.starts(buffer, Fresh.REPEAT)
        self.facts.storings.append(Storing(buffer, value))

    def draws(self, output: Value) -> Value:
        """State that an output is of random numbers, one for each of its units; returns it."""
        self.facts.draws.append(output)
        return output

    # -- sizes that are restated -----------------------------------------------------------------------------

    def attribute(self, name: str, *terms: Term, as_tuple: bool = False) -> None:
        """State that an attribute of the module restates the size of a term (or of several, as a tuple)."""
        self.facts.sizes.append(SizeSlot(Slot((name,), True), terms, as_tuple))

    def cut(self, whole: Term, anchor: Iterable[Term]) -> None:
        """State that an axis is cut at a place that is counted over `anchor`, whose size must be that of every call."""
        self.facts.cuts.append(Cut(whole, tuple(anchor)))

    def literal(self, path: Sequence[Any], *terms: Term, as_tuple: bool = False, within: Axes = ()) -> None:
        """State that an argument of the node restates the size of a term (anew when an axis grows that it lies in)."""
        self.facts.sizes.append(SizeSlot(Slot(tuple(path), False), terms, as_tuple, within))

    def pin(self, path: Sequence[Any], terms: Axes, value: Any, on_module: bool = False) -> None:
        """State that a slot must hold this value when one of the terms changes its size."""
        self.facts.pins.append(Pin(Slot(tuple(path), on_module), terms, value))

    def argument_path(self, position: int, name: str) -> tuple[Any, ...]:
        """Where an argument stands: by position, or by name where it was so given (or was left out)."""
        if len(self.node.args) > position:
            return ("args", position)
        return ("kwargs", name)


def plain(value: Any) -> Any:
    """A number without the memory of the sizes that it came from."""
    if isinstance(value, Extent):
        return int(value)
    return value.value if isinstance(value, Derived) else value


def meta_shape(meta: Any) -> torch.Size:
    """The shape of an example value of an operator that puts out a tensor in all of its forms."""
    shape: torch.Size = meta.shape
    return shape
