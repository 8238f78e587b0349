"""Dtypes that a forward reads off its tensors: the graph follows when the model is cast, as the model does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.layers import RootMeanSquareNorm, require_dtypes

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
DTYPES = [torch.bfloat16, torch.float16, torch.float64, torch.float32]


class Model(nn.Module):
    """Two layers, and what a test does between them."""

    def __init__(self, between: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.between = between

    @property
    def dtype(self) -> torch.dtype:
        """As transformers asks for it."""
        return next(self.parameters()).dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.last(self.between(self, self.first(x)))
        return h


def _there_and_back(m: Any, h: torch.Tensor) -> torch.Tensor:
    before = h.dtype
    return (h.to(torch.float32) * h.float().pow(2).mean(-1, keepdim=True).rsqrt()).to(before)


def _least_number(m: Any, h: torch.Tensor) -> torch.Tensor:
    kept = torch.ones(h.shape[0], 1, dtype=torch.bool, device=h.device)
    return h + torch.zeros(h.shape[0], 1, dtype=h.dtype).masked_fill(~kept, torch.finfo(h.dtype).min)


def _of_a_parameter(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h.double().to(m.dtype)).to(m.last.weight.dtype)


def _like_another(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.relu(h).float().type_as(h) + torch.arange(h.shape[0], dtype=h.dtype)[:, None]


def by_name(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.relu(h).type("torch.FloatTensor").type(h.type())


def by_class(m: Any, h: Any) -> torch.Tensor:
    answer: torch.Tensor = h.relu().type(torch.FloatTensor).type(h.type()) + (h > 0).type(torch.LongTensor)
    return answer


def _classes_of_python(m: Any, h: torch.Tensor) -> torch.Tensor:
    kept = torch.ones(h.shape[0], 1, dtype=bool)  # type: ignore[call-overload]
    return (h * kept.to(int).to(float)).to(h.dtype)


def _softmax(m: Any, h: torch.Tensor) -> torch.Tensor:
    return F.softmax(h, dim=-1, dtype=torch.float32).to(h.dtype) * h


WAYS = [_there_and_back, _least_number, _of_a_parameter, _like_another, _softmax, _classes_of_python]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("between", [*WAYS, by_name, by_class])
def test_a_graph_that_is_cast_answers_as_the_model_that_is_cast(between: Any, dtype: torch.dtype) -> None:
    model = Model(between)
    graph = gg.trace(model, X)
    cast, twin = copy.deepcopy(model).to(dtype), copy.deepcopy(graph.module).to(dtype)
    answer = twin(X.to(dtype))
    assert answer.dtype == dtype
    assert torch.equal(answer, cast(X.to(dtype)))


def test_traced_in_half_precision_it_is_exact_in_double() -> None:
    model = Model(_there_and_back).bfloat16()
    graph = gg.trace(model, X.bfloat16(), way="fx")
    cast, twin = copy.deepcopy(model).double(), copy.deepcopy(graph.module).double()
    torch.testing.assert_close(twin(X.double()), cast(X.double()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("between", [*WAYS, by_name, by_class])
def test_a_grown_model_is_preserved_cast_saved_and_exported(between: Any, tmp_path: Path) -> None:
    model = Model(between)
    graph = gg.trace(model, X)
    child = gg.apply(graph, next(iter(graph.mutations())))
    assert gg.verify(graph, child).preserved
    wide = copy.deepcopy(child.module).bfloat16()(X.bfloat16())
    torch.testing.assert_close(wide, copy.deepcopy(model).bfloat16()(X.bfloat16()), rtol=0.05, atol=0.05)
    gg.save(child, tmp_path / "saved")
    for again in (gg.load(tmp_path / "saved", model).module, pickle.loads(pickle.dumps(child)).module):
        assert torch.equal(again.bfloat16()(X.bfloat16()), wide)
    assert gg.export_onnx(child, tmp_path / "m.onnx").max_error < 1e-5
    gg.export_source(child, tmp_path / "written")  # which compares both, to the bit


def _decides(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h.clamp(-1000, 1000) if h.dtype == torch.float16 else h


def _decides_by_name(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h) if h.type() == "torch.FloatTensor" else h


def test_the_name_of_a_type_is_the_models_not_the_examples() -> None:
    model = Model(_decides_by_name)
    graph = gg.trace(model, X)
    child = gg.apply(graph, next(iter(graph.mutations("widen"))))
    assert torch.equal(graph.module(X), model(X))
    assert gg.verify(graph, child).preserved
    with pytest.raises(ValueError, match=r"test_dtypes.py:\d+ the model decides by the dtypes of its tensors"):
        copy.deepcopy(graph.module).double()(X.double())


def test_what_decides_by_a_dtype_is_refused_where_that_is_another() -> None:
    graph = gg.trace(Model(_decides), X)
    assert graph.module(X).dtype == torch.float32
    assert copy.deepcopy(graph.module).double()(X.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"test_dtypes.py:\d+ the model decides by the dtypes of its tensors"):
        copy.deepcopy(graph.module).half()(X.half())


def test_a_cast_to_a_dtype_that_is_read_decides_nothing() -> None:
    graph = gg.trace(Model(lambda m, h: h.float().type(h.dtype)), X)
    assert not any(node.target is require_dtypes for node in graph.module.graph.nodes)


def _norm(*, back: bool, behind: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def between(m: Any, h: torch.Tensor) -> torch.Tensor:
        wide = h.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        normal = wide.to(h.dtype) if back else wide
        if behind == "weight":
            normal = m.scale.weight * normal
        if behind == "float":
            normal = normal.float()
        return normal.sigmoid().to(h.dtype)

    return between


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("back", [True, False])
@pytest.mark.parametrize("behind", ["nothing", "weight", "float"])
def test_a_norm_that_is_raised_ends_in_the_dtype_in_which_it_was_written(
    back: bool, behind: str, dtype: torch.dtype
) -> None:
    model = Model(_norm(back=back, behind=behind))
    model.scale = nn.Module()
    model.scale.weight = nn.Parameter(torch.rand(8) + 0.5)
    graph = gg.trace(model, X)
    assert any(isinstance(part, RootMeanSquareNorm) for part in graph.module.modules())
    cast, twin = copy.deepcopy(model).to(dtype), copy.deepcopy(graph.module).to(dtype)
    torch.testing.assert_close(twin(X.to(dtype)), cast(X.to(dtype)), rtol=0, atol=1e-6 if dtype == torch.float32 else 0)


def test_whether_a_parameter_learns_is_asked_of_the_parameter() -> None:
    def doubled(m: Any, h: torch.Tensor) -> torch.Tensor:
        asked = next(m.parameters()).requires_grad, m.norm.weight.requires_grad
        return h * 2 if asked == (True, False) else h

    model = Model(doubled)
    model.norm.requires_grad_(False)
    graph = gg.trace(model, X, way="fx")
    assert torch.equal(graph.module(X), model(X))
    assert torch.equal(model.last(2 * model.first(X)), model(X))
