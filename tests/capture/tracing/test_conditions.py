"""What a forward decides by values: checked where no input has a part, and where the other way is the model's error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import require_admitted, require_values
from tests.preserved import assert_preserved

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two layers, and something between them that is a function of the model and what flows there."""

    def __init__(self, between: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.between = nn.Linear(3, 6), nn.Linear(6, 2), between
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("ready", torch.tensor([True]))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self, self.first(x)))


def raises_at_nan(m: Any, h: torch.Tensor) -> torch.Tensor:
    if torch.isnan(h).any():
        raise ArithmeticError("not a number")
    return h


def asserts_finite(m: Any, h: torch.Tensor) -> torch.Tensor:
    assert h.isfinite().all(), "infinite"
    return h


def counts_first(m: Any, h: torch.Tensor) -> torch.Tensor:
    """Its code is another in each trace, in which `int` is exchanged."""
    rows = int(h.shape[0] / 2)
    if h[:rows].isnan().any():
        raise ArithmeticError("not a number")
    return h


def asserts_a_range(m: Any, h: torch.Tensor) -> torch.Tensor:
    """A message that reads numbers is worked out on the example, which is in the range."""
    assert not h.isnan().any() and h.isfinite().all(), f"up to {h.max().item()}"  # noqa: PT018
    return h


def asserts_by_torch(m: Any, h: torch.Tensor) -> torch.Tensor:
    torch._assert(h.isfinite().all(), "infinite")
    return h


def checks_by_torch(m: Any, h: torch.Tensor) -> torch.Tensor:
    torch._check(h.dim() == 2, lambda: "of two axes")
    torch._check(h.shape[0] > 1)
    torch._check(bool(h.isfinite().all().item()), lambda: "infinite")
    return h


def checks_each_entry_by_torch(m: Any, h: torch.Tensor) -> torch.Tensor:
    torch._check_tensor_all(h.isfinite(), lambda: "not all finite")
    return h


def asserts_of_a_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    """The number is of the inputs; in what it is compared with the sizes may be others, and so may it be then."""
    missing = h.isnan().any(dim=1).sum()
    assert missing.item() < h.shape[0] / 4, "too few"
    return h


def raises_at_an_integer(m: Any, h: torch.Tensor) -> torch.Tensor:
    """Of `int` there are two attempts, the second of which ends elsewhere than the model does."""
    if int(h.isnan().any(dim=1).sum()) > 0:  # no assertion, which pytest would write anew
        raise ArithmeticError("a gap")
    return h


def two_checks(m: Any, h: torch.Tensor) -> torch.Tensor:
    return asserts_finite(m, raises_at_nan(m, h).tanh())


@pytest.mark.parametrize(
    ("between", "words"),
    [(raises_at_nan, "ArithmeticError: not a number"), (asserts_finite, "AssertionError: infinite"),
     (asserts_a_range, "AssertionError: up to"), (asserts_by_torch, "AssertionError: infinite"),
     (counts_first, "ArithmeticError: not a number"), (two_checks, "ArithmeticError: not a number"),
     (checks_by_torch, "RuntimeError: infinite"), (checks_each_entry_by_torch, "RuntimeError: not all finite"),
     (asserts_of_a_number, "AssertionError: too few"), (raises_at_an_integer, "ArithmeticError: a gap")],
)  # fmt: skip
def test_what_the_model_refuses_the_graph_refuses(between: Any, words: str) -> None:
    """And what is checked can grow: new units are finite wherever old ones are."""
    model = Net(between)
    graph = gg.trace(model, X, way="fx")
    assert torch.equal(graph.module(X), model(X))
    grown = gg.apply(graph, "widen(first, extra=2)")
    assert_preserved(graph, grown)
    wrong = X.clone()
    wrong[1, 2] = torch.nan
    with pytest.raises((ArithmeticError, AssertionError, RuntimeError)):
        model(wrong)
    for module in (graph.module, grown.module):
        with pytest.raises(ValueError, match=rf"test_conditions.py:\d+ the model refuses such values: {words}"):
            module(wrong)


def test_a_size_that_a_number_is_compared_with_stays() -> None:
    """The grown graph would refuse other numbers than the model does."""

    def few(m: Any, h: torch.Tensor) -> torch.Tensor:
        assert h.isnan().sum().item() < h.shape[1]
        return h

    assert not gg.trace(Net(few), X).mutations("widen")


def test_a_check_of_sizes_is_one_of_what_the_model_decides_by_them() -> None:
    """It goes with the sizes: torch's own check runs where the graph is made, and a decision holds it in each call."""
    graph = gg.trace(Net(checks_by_torch), X, way="fx")
    with pytest.raises(ValueError, match=r"decides by the sizes of its inputs: the graph holds where that gives True"):
        graph.module(X[:1])


def goes_on_either_way(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h if h.sum() > 0 else -h


def goes_on_either_way_by_a_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h if h.sum().item() > 0 else -h


def calls_what_raises(m: Any, h: torch.Tensor) -> torch.Tensor:
    """What is called may fail for another reason than the condition."""
    if h.sum() > 100:
        torch.empty(2).reshape(3)
    return h


def calls_an_operator_that_checks(m: Any, h: torch.Tensor) -> torch.Tensor:
    """The check is torch's, of the operator's arguments, and not the model's."""
    if h.sum() > 100:
        torch.linalg.cross(h, h)
    return h


def raises_both_ways(m: Any, h: torch.Tensor) -> torch.Tensor:
    if h.sum() > 100:
        raise ValueError("large")
    if m.training:
        raise ValueError("in train mode")
    return h


@pytest.mark.parametrize(
    "between", [goes_on_either_way, goes_on_either_way_by_a_number, calls_what_raises, calls_an_operator_that_checks]
)
def test_a_path_by_values_is_refused(between: Any) -> None:
    with pytest.raises(gg.CaptureError, match=r"depends on the values of (the|a) tensor.*test_conditions.py:\d+"):
        gg.trace(Net(between), X)


def test_the_other_mode_may_fail_behind_the_check() -> None:
    graph = gg.trace(Net(raises_both_ways).eval(), X)
    assert graph.modes == {"eval"}
    assert torch.equal(graph.module(X), Net(raises_both_ways).eval()(X))


def by_a_buffer(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h * 2 if m.ready else h


def by_its_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h * m.scale.item()


def by_a_table(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h * sum((m.scale * torch.arange(3)).tolist())


def by_zeros(m: Any, h: torch.Tensor) -> torch.Tensor:
    hidden = torch.zeros(len(h), dtype=torch.bool, device=h.device)
    return -h if hidden.all() else h


def as_a_whole_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h * int(m.count) * float(m.scale)


def by_a_condition_on_its_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h * 2 if m.scale.item() + len(h) - len(h) > 1 else h


@pytest.mark.parametrize(
    "between", [by_a_buffer, by_a_condition_on_its_number, by_a_table, by_zeros, as_a_whole_number]
)
def test_what_no_input_has_a_part_in_is_decided(between: Any) -> None:
    model = Net(between)
    graph = gg.trace(model, X, way="fx")
    grown = gg.apply(graph, "widen(first, extra=2)")
    assert_preserved(graph, grown)
    for rows in (X, X[:1], torch.cat((X, X))):
        assert torch.equal(graph.module(rows), model(rows))
    assert gg.verify(graph, grown).preserved
    assert any(node.target is require_values for node in grown.module.graph.nodes)


def test_a_number_in_a_buffer_that_decides_no_path_may_change() -> None:
    model = Net(by_its_number)
    graph = gg.trace(model, X, way="fx")
    grown = gg.apply(graph, "widen(first, extra=2)")
    assert_preserved(graph, grown)
    model.scale.fill_(5.0)
    assert torch.equal(graph.module(X), model(X))


def test_another_number_in_the_buffer_is_refused() -> None:
    model = Net(by_a_buffer)
    graph = gg.trace(model, X)
    model.ready.fill_(False)
    with pytest.raises(
        ValueError, match=r"test_conditions.py:\d+ the model decides by a value .* is \[True\], not \[Fal"
    ):
        graph.module(X)


def by_a_parameter(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h if m.gain > 0 else -h


def by_chance(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h if torch.rand(()) < 2 else -h


def by_what_it_overwrote(m: Any, h: torch.Tensor) -> torch.Tensor:
    hidden = torch.zeros(len(h), device=h.device)
    hidden[0] = h.sum()
    return h if hidden.any() else -h


@pytest.mark.parametrize("between", [by_a_parameter, by_chance, by_what_it_overwrote])
def test_what_training_chance_or_inputs_change_is_no_such_value(between: Any) -> None:
    with pytest.raises(gg.CaptureError, match="depends on the values"):
        gg.trace(Net(between), X)


def once(m: Any, h: torch.Tensor) -> torch.Tensor:
    if not m.ready:
        with torch.no_grad():
            m.scale.fill_(3.0)
            m.ready.fill_(True)
    return h * m.scale


def test_a_buffer_that_the_forward_sets_for_the_next_call_is_refused_until_it_is_settled() -> None:
    """As the first batch sets the scale of an ActNorm."""
    model = Net(once)
    model.ready.fill_(False)
    with pytest.raises(gg.CaptureError, match=r"decides by .* made of a buffer that it overwrites"):
        gg.trace(model, X, way="fx")
    model(X)
    graph = gg.trace(model, X)
    assert torch.equal(graph.module(X), model(X))


def test_checks_say_nothing_where_there_is_nothing_to_read() -> None:
    require_admitted(torch.empty((), dtype=torch.bool, device="meta"), True, "here", "wrong")
    require_values(torch.empty(2, device="meta"), [1.0, 2.0], "here")
    for value in (torch.tensor(False), False):
        with pytest.raises(ValueError, match="here the model refuses such values: wrong"):
            require_admitted(value, True, "here", "wrong")
