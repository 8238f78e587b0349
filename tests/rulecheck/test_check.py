"""gg.check_rule: right rules pass, wrong ones show the smallest case, and what could be admitted is told."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.rulecheck.check import Draws, check_rule
from graphgrow.rules import Call, Fresh, Value, axis_rule, flow
from tests.ops.rules_kept import rules_kept

Draw = Callable[[int, int], int]


@pytest.fixture(autouse=True)
def _rules_of_one_test() -> Iterator[None]:
    with rules_kept():
        yield


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.gain = width, nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] == self.width, "another width"
        return x * (1 + self.gain)


def scales(draw: Draw) -> tuple[Any, ...]:
    width = draw(1, 5)
    return Scale(width), torch.randn(draw(1, 3), width)


def scale_rule(form: str) -> Callable[..., Value]:
    def rule(call: Call, input: Value) -> Value:
        gain = call.weight("gain", Fresh.ZEROS)
        call.same(input.axes[-1], gain.axes[0])
        if form != "forgets its width":
            call.attribute("width", gain.axes[0])
        if form == "freezes":
            call.freeze(input.axes, "no idea")
        x, factor = call.operand(input), flow.Pointwise((call.operand(gain),))
        if form == "exact":
            return call.output(input.axes, flow.Mul((x, factor)))
        return call.output(input.axes, flow.Pointwise((x, call.operand(gain)), zero=form == "keeps zeros"))

    return rule


def report(form: str) -> Any:
    axis_rule(Scale)(scale_rule(form))
    return check_rule(scales, cases=4)


def test_a_rule_that_says_all_is_right_and_misses_nothing() -> None:
    found = report("exact")
    assert (found.right, found.cases, found.missing, dict(found.frozen)) == (True, 4, (), {})
    assert found.admits["x.0"] == "free>free zero>zero mean>mean copy>copy share>share"
    assert found.admits["x.1"].startswith("free>free zero>zero")
    assert str(found).startswith("Scale: right in 4 cases")


def test_what_a_careful_rule_could_admit_is_told() -> None:
    found = report("careful")
    assert found.right
    assert "x.0: the rule says x.0 zero -> free; it was zero in all cases" in found.missing
    assert "could admit x.0: the rule says x.0 zero -> free" in str(found)
    found = gg.check_rule(lambda draw: (F.relu, torch.randn(draw(2, 4), 2) - 1), cases=4)
    assert not any("zero ->" in hint for hint in found.missing)


def test_an_axis_that_is_frozen_for_nothing_is_told() -> None:
    found = report("freezes")
    assert (found.right, dict(found.admits)) == (True, {})
    assert "no idea" in found.frozen["x.1"]
    assert "x.0: the rule freezes it (no idea), zero; it was zero in all cases" in found.missing
    assert not any(hint.startswith("x.1: the rule freezes") for hint in found.missing)  # alone it cannot grow


@pytest.mark.parametrize(
    ("form", "text"), [("forgets its width", "StructureError"), ("keeps zeros", "off by")], ids=["size", "zero"]
)
def test_a_wrong_module_rule_fails(form: str, text: str) -> None:
    if form == "keeps zeros":  # x * (1 + gain) does; a shifted scale does not
        Scale.forward = lambda self, x: x * (1 + self.gain) + 0.5  # type: ignore[method-assign]
    try:
        found = report(form)
    finally:
        Scale.forward = _FORWARD  # type: ignore[method-assign]
    assert not found.right
    assert text in found.failure.text
    assert str(found).startswith("Scale: WRONG in case 1\n  smallest case that fails: inputs (1, 1)\n")


_FORWARD = Scale.forward


def shifted(x: torch.Tensor, by: float = 1.0, dim: int = -1) -> torch.Tensor:
    return torch.softmax(x, dim) * by


def test_a_wrong_function_rule_shows_the_smallest_case() -> None:
    @axis_rule(shifted)
    def rule(call: Call, x: Value, by: float = 1.0, dim: int = -1) -> Value:
        return call.output(x.axes, flow.Pointwise((call.operand(x),)))

    def example(draw: Draw) -> tuple[Any, ...]:
        return functools.partial(shifted, dim=0), torch.randn(draw(2, 9), draw(1, 9)), float(draw(1, 9))

    found = check_rule(example, cases=3, seed=1)
    assert found.failure is not None
    assert found.failure.inputs == "(2, 1), 1.0"
    assert found.failure.text.startswith("x.0: 2 -> 3 units, x.0 free -> free: off by")


def test_operators_of_every_kind_and_inputs_in_lists_and_by_number() -> None:
    examples: list[Callable[[Draw], tuple[Any, ...]]] = [
        lambda draw: ("exp", torch.randn(draw(2, 3), 2)),
        lambda draw: (torch.cat, [torch.randn(draw(2, 3), 2), torch.randn(draw(2, 3), 2)]),
        lambda draw: (F.linear, torch.randn(2, width := draw(1, 3)), torch.randn(draw(1, 3), width)),
        lambda draw: (nn.Embedding(5, draw(2, 3)), torch.tensor([1, 4])),
    ]
    tables = []
    for example in examples:
        found = check_rule(example, cases=2)
        assert found.right, str(found)
        tables.append(found.admits)
    assert tables[0]["x.0"] == "zero>free copy>copy"
    assert set(tables[1]) == {"x.0", "y.0", "x.1"}
    assert "free>-" in tables[2]["x.1"]


def test_what_is_no_example_is_refused() -> None:
    with pytest.raises(gg.RuleError, match="an operator and its inputs"):
        check_rule(lambda draw: torch.randn(2))  # type: ignore[arg-type, return-value]
    with pytest.raises(gg.RuleError, match="hold no tensor"):
        check_rule(lambda draw: (torch.relu, 3))
    with pytest.raises(gg.RuleError, match=r"no node of .*Scale"):
        check_rule(scales)


def test_an_operator_with_its_input_is_no_example() -> None:
    given: Any = torch.zeros(2, 4)
    with pytest.raises(
        gg.RuleError, match=r"a function that draws sizes and makes an operator .*, not Scale and cases=ten"
    ):
        check_rule(Scale(4), given)


def test_a_rule_without_a_flow_is_called_that() -> None:
    """A `KeyError` left the check."""
    axis_rule(Scale)(lambda call, x: call.output(x.axes))
    with pytest.raises(gg.RuleError, match=r"does not say how new units get to its output: call.output\(axes, flow\)"):
        check_rule(scales, cases=2)


def test_numbers_are_drawn_again_as_given() -> None:
    first = Draws(given=[7, 2])
    assert [first(1, 5), first(1, 5), first(3, 9)] == [5, 2, 3]
    assert first.made == [5, 2, 3]


def test_a_hint_needs_old_units_in_their_places_and_new_ones_that_are_finite() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return (1 / x).repeat(1, 2)

    @axis_rule(twice)
    def rule(call: Call, x: Value) -> Value:
        call.freeze(x.axes, "no idea")
        doubled = [x.axes[0], call.fixed(2 * x.axes[1].size, "two of each")]
        return call.output(doubled, flow.Pointwise((call.operand(x),)))

    found = check_rule(lambda draw: (twice, torch.ones(draw(2, 3), draw(2, 3))), cases=3)
    assert found.right
    assert set(found.frozen) == {"x.0", "x.1"}
    hints = " ".join(found.missing)
    assert "x.0: the rule freezes it (no idea), copy; it was copy in all cases" in hints
    assert "zero" not in hints  # one by zero
    assert "x.1" not in hints  # a unit more makes two


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (lambda x: x.sum(0, keepdim=not x.is_meta and x.shape[0] > 2), r"shape \(1, 2\) where \(2,\)"),
        (lambda x: x * 1 if x.is_meta else x[:2], "2 units along axis 0 where 3 were expected"),
    ],
    ids=["other axes", "fewer units"],
)
def test_an_operator_whose_shapes_without_data_are_not_its_own_fails(run: Callable[..., Any], text: str) -> None:
    def lies(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = run(x)
        return result

    @axis_rule(lies)
    def rule(call: Call, x: Value) -> Value:
        return call.output(x.axes[2 - call.meta.dim() :], flow.Pointwise((call.operand(x),)))

    found = check_rule(lambda draw: (lies, torch.randn(2, 2)), cases=1)
    assert found.failure is not None
    assert re.search(text, found.failure.text)
