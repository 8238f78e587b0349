"""Graphs that Dynamo records follow when they are cast, as the model does, or refuse the cast by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

import graphgrow as gg
from graphgrow.capture.dynamo import recast
from graphgrow.layers import RootMeanSquareNorm
from tests.capture.stand_ins.test_dtypes import WAYS, Model, X, by_name

HALVES = [torch.bfloat16, torch.float16]
DTYPES = [*HALVES, torch.float64, torch.float32]


def assert_follows(model: nn.Module, graph: gg.Graph, example: torch.Tensor, dtypes: list[torch.dtype]) -> None:
    for dtype in dtypes:
        cast, twin = copy.deepcopy(model).to(dtype), copy.deepcopy(graph.module).to(dtype)
        given = example.to(dtype) if example.is_floating_point() else example
        wanted, found = cast(given), twin(given)
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


def _promoted(m: Any, h: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(h.dtype, torch.float32)
    return (h.to(wide).cumsum(-1) / 3).to(m.first.bias.dtype)


def _tiny(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h / (h.abs().amax(-1, keepdim=True) + torch.finfo(h.dtype).eps)


def _in_a_region(m: Any, h: torch.Tensor) -> torch.Tensor:
    return checkpoint(lambda x: x.float().sigmoid().to(x.dtype), h, use_reentrant=False)


def _without_gradient(m: Any, h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = m.norm.weight.float().exp().to(h.dtype)
    return h * scale


FURTHER = [_promoted, _tiny, _in_a_region, _without_gradient]


@pytest.mark.parametrize("between", [*WAYS, *FURTHER])
def test_a_graph_that_is_cast_answers_as_the_model_that_is_cast(between: Any) -> None:
    model = Model(between)
    graph = gg.trace(model, X, way="dynamo")
    assert graph.modes == {"train", "eval"}
    assert_follows(model, graph, X, DTYPES)
    child = gg.apply(graph, next(iter(graph.mutations())))
    assert gg.verify(graph, child).preserved
    half = copy.deepcopy(child.module).bfloat16()(X.bfloat16())
    torch.testing.assert_close(half, copy.deepcopy(model).bfloat16()(X.bfloat16()), rtol=0.05, atol=0.05)


def test_a_type_that_is_read_by_its_name_holds_in_that_dtype_alone() -> None:
    """Dynamo records the name itself."""
    model = Model(by_name)
    graph = gg.trace(model, X, way="dynamo")
    assert torch.equal(graph.module(X), model(X))
    assert gg.verify(graph, gg.apply(graph, next(iter(graph.mutations())))).preserved
    with pytest.raises(ValueError, match="the model decides by the dtypes of its tensors"):
        copy.deepcopy(graph.module).double()(X.double())


def test_recorded_in_half_precision_it_is_exact_in_double() -> None:
    model = Model(WAYS[0]).bfloat16()
    graph = gg.trace(model, X.bfloat16(), way="dynamo")
    assert_follows(model, graph, X, DTYPES)


def test_casts_that_are_the_models_own_stay() -> None:
    def own(m: Any, h: torch.Tensor) -> torch.Tensor:
        return h.to(torch.float32).tanh().to(torch.float64).to(h.dtype)

    model = Model(own)
    graph = gg.trace(model, X, way="dynamo")
    named = [leaf for node in graph.module.graph.nodes for leaf in node.args if isinstance(leaf, torch.dtype)]
    assert named == [torch.float32, torch.float64]
    assert_follows(model, graph, X, DTYPES)


class Tokens(nn.Module):
    """No input of floating point, a tied head, a buffer, a recurrent layer, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.table.weight
        self.lstm, self.drop = nn.LSTM(6, 6, batch_first=True), nn.Dropout(0.1)
        self.register_buffer("angles", torch.linspace(0, 1, 6), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1], device=ids.device).float()
        h = self.table(ids) + (places[:, None] * self.angles.float()).cos().to(self.table.weight.dtype)
        h, _ = self.lstm(self.drop(h))
        result: torch.Tensor = self.head(h)
        return result


def test_what_is_tied_and_what_a_recurrent_layer_holds_are_as_before() -> None:
    model, ids = Tokens().eval(), torch.arange(10).reshape(2, 5)
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    graph = gg.trace(model, ids, way="dynamo")
    assert_follows(model, graph, ids, [torch.float64, torch.bfloat16])
    assert model.head.weight is model.table.weight
    assert model.lstm._flat_weights[0] is model.lstm.weight_ih_l0
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert (id(tensor), True) == (before[name][0], torch.equal(tensor, before[name][1]))


def _clamped(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h.clamp(-1000, 1000) if h.dtype == torch.float16 else h


def _own_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h + (1e-6 if h.dtype in (torch.float32, torch.float64) else 1e-2)


def test_what_makes_another_graph_is_refused_and_all_else_goes_on() -> None:
    for between, refused in ((_clamped, [torch.float16]), (_own_number, HALVES)):
        model = Model(between)
        graph = gg.trace(model, X, way="dynamo")
        assert_follows(model, graph, X, [dtype for dtype in DTYPES if dtype not in refused])
        for dtype in refused:
            saw = rf"test_recast.py:\d+ the model decides by .* torch.float32 or torch.float64( or .*)?, not {dtype}"
            with pytest.raises(ValueError, match=saw):
                copy.deepcopy(graph.module).to(dtype)(X.to(dtype))


def test_a_decision_in_one_mode_alone_is_seen() -> None:
    def both(m: Any, h: torch.Tensor) -> torch.Tensor:
        return h * 2 if m.training and h.dtype == torch.bfloat16 else h

    model = Model(both)
    graph = gg.trace(model, X, way="dynamo")
    assert graph.modes == {"train", "eval"}
    assert_follows(model, graph, X, [torch.float64, torch.float16])
    with pytest.raises(ValueError, match=r"not torch\.bfloat16"):
        copy.deepcopy(graph.module).bfloat16()(X.bfloat16())


def test_an_input_that_is_not_cast_with_the_model_is_refused() -> None:
    """`to(x.dtype)` and `to(weight.dtype)` are one cast to Dynamo, as long as both are cast."""

    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.map(x.to(self.map.weight.dtype)).to(x.dtype)
            return result

    model = Either()
    graph = gg.trace(model, X, way="dynamo")
    assert_follows(model, graph, X, DTYPES)
    with pytest.raises(ValueError, match=r"not \(torch.bfloat16, torch.float32\)"):
        copy.deepcopy(graph.module).bfloat16()(X)


def _t5(m: Any, h: torch.Tensor) -> torch.Tensor:
    h = h * torch.rsqrt(h.to(torch.float32).pow(2).mean(-1, keepdim=True) + 1e-6)
    if m.scale.weight.dtype in HALVES:
        h = h.to(m.scale.weight.dtype)
    result: torch.Tensor = m.scale.weight * h
    return result


def _back(m: Any, h: torch.Tensor) -> torch.Tensor:
    wide = h.float()
    result: torch.Tensor = m.scale.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(h.dtype)
    return result


def _wide_and_then(m: Any, h: torch.Tensor) -> torch.Tensor:
    wide = h.float()
    normal = m.scale.weight.float() * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6))
    return normal.float().sigmoid().to(h.dtype)


def _back_in_the_end(m: Any, h: torch.Tensor) -> torch.Tensor:
    wide = h.float()
    normal = m.scale.weight.float() * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6))
    return normal.to(m.first.weight.dtype)


@pytest.mark.parametrize(
    ("norm", "refused"), [(_t5, HALVES), (_back, []), (_wide_and_then, []), (_back_in_the_end, [])]
)
def test_a_norm_that_is_raised_is_that_of_the_model_in_every_dtype(
    norm: Callable[[Any, torch.Tensor], torch.Tensor], refused: list[torch.dtype]
) -> None:
    model = Model(norm)
    model.scale = nn.Module()
    model.scale.weight = nn.Parameter(torch.rand(8) + 0.5)
    graph = gg.trace(model, X, way="dynamo")
    raised = any(isinstance(part, RootMeanSquareNorm) for part in graph.module.modules())
    assert raised is (norm is not _wide_and_then)  # in float64 it is narrower than its input, as no layer is
    assert_follows(model, graph, X, [dtype for dtype in [*HALVES, torch.float32] if dtype not in refused])
    for dtype in refused:
        with pytest.raises(ValueError, match="the model decides by the dtypes of its tensors"):
            copy.deepcopy(graph.module).to(dtype)(X.to(dtype))
    assert gg.verify(graph, gg.apply(graph, "widen(first, extra=3)")).preserved


def test_saved_exported_and_written_as_source(tmp_path: Path) -> None:
    model = Model(WAYS[1])
    graph = gg.trace(model, X, way="dynamo")
    child = gg.apply(graph, "widen(first, extra=3)")
    gg.save(child, tmp_path / "saved")
    again = gg.load(tmp_path / "saved", model).module.bfloat16()
    assert torch.equal(again(X.bfloat16()), copy.deepcopy(child.module).bfloat16()(X.bfloat16()))
    assert gg.export_onnx(child, tmp_path / "m.onnx").max_error < 1e-5
    gg.export_source(child, tmp_path / "written")  # which compares both, to the bit


def _record(
    called: Callable[..., Any] = torch.add,
    power: float | None = 2,
    crossed: bool = False,
    longer: bool = False,
    held: torch.Tensor | None = None,
) -> fx.GraphModule:
    """What a recording may look like: a sum with a held tensor, and a power of it."""
    graph, root = fx.Graph(), nn.Module()
    root.register_buffer("held", torch.ones(2) if held is None else held)
    x, y = graph.placeholder("x"), graph.get_attr("held")
    total = graph.call_function(called, (x, y))
    last = graph.call_function(torch.pow, (x if crossed else total, y if power is None else power))
    graph.output(graph.call_function(torch.neg, (last,)) if longer else last)
    return fx.GraphModule(root, graph)


@pytest.mark.parametrize(
    ("other", "at"),
    [
        (_record(called=torch.sub), "sub"),
        (_record(power=3), "pow"),
        (_record(power=None), "pow"),
        (_record(crossed=True), "pow"),
        (_record(longer=True), "neg"),
        (_record(held=torch.ones(3)), "held"),
        (_record(held=torch.zeros(2)), "held"),
        (_record(held=torch.ones(2, dtype=torch.float64)), "held"),
    ],
)
def test_records_that_differ_in_more_than_dtypes_and_floats_are_two(other: fx.GraphModule, at: str) -> None:
    assert list(recast._literals(_record(), _record())) == []
    assert [found[1:] for found in recast._literals(_record(power=2.0), _record(power=3.0))] == [(2.0, 3.0)]
    with pytest.raises(recast._Differs, match=at):
        list(recast._literals(_record(), other))
