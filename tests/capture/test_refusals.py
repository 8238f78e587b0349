"""What no graph can hold, and what is said of it: models, inputs and outputs that are refused, one a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.capture.dynamo.fallback import _refuse_higher_order
from graphgrow.capture.dynamo.leaf_calls import layer_call
from graphgrow.capture.dynamo.recording import _Shapes
from graphgrow.capture.graphs.writes import watch

X = torch.linspace(-1, 1, 8).reshape(2, 4)


class Net(nn.Module):
    """Does what it is given, with a layer, a buffer that is not there and a part."""

    def __init__(self, run: Callable[..., Any], part: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.run, self.part = nn.Linear(4, 4), run, part
        self.register_buffer("later", None)

    def forward(self, x: torch.Tensor, more: Any = None) -> Any:
        return self.run(self, x, more)


class Own(dict[str, Any]):
    """A dictionary of a class of its own."""


class Thing:
    """Holds a tensor, where nobody looks."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


class Doubled(nn.Module):
    def forward(self, inputs: dict[str, Any]) -> Any:
        return inputs["x"] * 2


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": x}


class Chosen(nn.Module):
    """Goes another way where the numbers are small."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v * 3, (x,))
        return y


def _fills(net: Any, x: torch.Tensor, _: Any) -> Any:
    net.later = x * 2
    return net.layer(x)


def _sets_an_item(net: Any, x: torch.Tensor, _: Any) -> Any:
    found = net.part(x)
    found["y"] = x
    return net.layer(found["x"])


def _adds_to_each(net: Any, x: torch.Tensor, _: Any) -> Any:
    y = net.layer(x) + 0
    torch._foreach_add_([y], 1.0)
    return y


def _shortens(net: Any, x: torch.Tensor, _: Any) -> Any:
    y = net.layer(x) + 0
    y.resize_(1, 4)
    return y


def _row_by_row(net: Any, x: torch.Tensor, _: Any) -> Any:
    return torch.func.vmap(net.layer)(x)


def _plain(net: Any, x: torch.Tensor, _: Any) -> Any:
    return net.layer(x)


def _with_a_thing(net: Any, x: torch.Tensor, _: Any) -> Any:
    return {"logits": net.layer(x), "thing": Thing(x)}


class Bare:
    """Nothing that a graph could make."""


def _with_a_bare_thing(net: Any, x: torch.Tensor, _: Any) -> Any:
    return {"logits": net.layer(x), "thing": Bare()}


def _quantised() -> nn.Module:
    layer = nn.Linear(4, 4)
    numbers = torch.quantize_per_tensor(layer.weight.detach(), 0.1, 0, torch.qint8)
    layer.weight = nn.Parameter(numbers, requires_grad=False)
    return layer


Case = tuple[Callable[[], nn.Module], Any, dict[str, Any], str]
CASES: dict[str, Case] = {
    "a model that is sharded": (
        lambda: type("FullyShardedDataParallel", (nn.Linear,), {})(4, 4), X, {},
        "the model is sharded by FullyShardedDataParallel; capture it before it is",
    ),
    "a weight that is quantised": (_quantised, X, {}, "`weight` is quantised; capture the model in floating point"),
    "a buffer that is there from the first call on": (
        lambda: Net(_fills), X, {"way": "fx"}, "the forward fills `later`, which holds no tensor before",
    ),
    "a dictionary of an unknown class": (
        lambda: Net(lambda net, x, _: net.part(Own(x=net.layer(x))), Doubled()), X, {"leaves": [Doubled]},
        "the forward passes on a Own, a dictionary that a graph cannot make",
    ),
    "the same as an input": (
        lambda: Net(lambda net, x, more: net.layer(x) * more["x"]), (X, Own(x=X)), {"way": "fx"},
        "an input is a Own; wanted tensors in lists, tuples, dicts and dataclasses",
    ),
    "an object as an input": (
        lambda: Net(_plain), (X, Thing(X)), {},
        "the input `more` is a Thing; wanted tensors and plain values in lists, tuples and dicts",
    ),
    "a set as an input": (lambda: Net(_plain), (X, {1, 2}), {}, "the input `more` is a set; wanted tensors and plain"),
    "an object within an input": (
        lambda: Net(_plain), (X, [{"x": (1, Thing(X))}]), {"way": "dynamo"}, "the input `more` is a list; wanted",
    ),
    "an object in the output": (
        lambda: Net(_with_a_thing), X, {}, r"Net returns a Thing, wanted tensors in containers.*\(`\.\w+`\)",
    ),
    "an object without tensors in the output": (
        lambda: Net(_with_a_bare_thing), X, {"way": "dynamo"}, "its output holds a Bare, wanted tensors in containers",
    ),
    "a dictionary that is changed": (
        lambda: Net(_sets_an_item, Named()), X, {"leaves": [Named], "way": "fx"}, "an item of `part`, a dict, is set",
    ),
    "an operator that changes what it does not return": (
        lambda: Net(_adds_to_each), X, {"way": "fx"}, r"`_foreach_add_` writes into `add` and does not return it",
    ),
    "an operator that changes a shape in place": (
        lambda: Net(_shortens), X, {"way": "fx"}, r"`resize_` changes the shape of `add` in place, from",
    ),
    "torch.func": (
        lambda: Net(_row_by_row), X, {"way": "dynamo"}, "of torch.func, for which a graph has no node",
    ),
    "a branch on numbers": (
        Chosen, X, {"way": "dynamo"}, "`cond` chooses or repeats pieces of code by the numbers in tensors",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_the_reason(case: str) -> None:
    build, inputs, options, words = CASES[case]
    with pytest.raises(gg.CaptureError, match=words):
        gg.trace(build(), inputs, **options)


def test_operators_over_pieces_of_code_are_found_in_a_record() -> None:
    graph = fx.Graph()
    graph.call_function(torch.ops.higher_order.print, ("hello",))
    with pytest.raises(gg.CaptureError, match="`print_1` is an operator over pieces of code"):
        _refuse_higher_order(graph)


def test_plain_values_of_every_kind_are_inputs() -> None:
    """They stand in the code of the graph, which holds for them alone."""
    given = {"by": 2.0, "rest": [1, None, "x", (True, torch.float64, slice(0, 1))]}
    graph = gg.trace(Net(lambda net, x, more: net.layer(x) * more["by"]), (X, given), way="dynamo")
    assert torch.equal(graph.module(X, given), graph.module(X, dict(given)))
    with pytest.raises(ValueError, match="the graph was captured with more="):
        graph.module(X, {**given, "by": 3.0})


def test_what_belongs_to_no_recording_is_refused() -> None:
    with pytest.raises(gg.CaptureError, match="the layer `part` was called without a tensor while it was recorded"):
        layer_call("part", 3)
    graph = fx.Graph()
    graph.call_method("add_", (graph.placeholder("x"), 1))
    with pytest.raises(gg.CaptureError, match="overwrites tensors in place, and its input `x` is not known"):
        watch(graph, nn.Module())
    number = fx.Graph().placeholder("s7")
    number.meta["example_value"] = 7
    with pytest.raises(gg.CaptureError, match="it computes with `s7`, a number that is no size of a tensor that it"):
        _Shapes({}).size(number)


def test_where_dynamo_records_nothing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)  # as TORCH_COMPILE_DISABLE=1 does
    with pytest.raises(gg.CaptureError, match="its forward calls no operator of torch"):
        gg.trace(nn.Linear(4, 4), X, way="dynamo")
