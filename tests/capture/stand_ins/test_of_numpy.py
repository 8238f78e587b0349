"""Numpy in a forward: what the graph computes is what the model does, at other sizes and once a size has grown too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.capture.trace import capture

_TEMPERATURE = np.power(6, 0.5)  # a number of numpy's, as an attribute of many an attention is
_TABLE: Any = np.linspace(-1.0, 1.0, 6)
_ONE: Any = np.int64(1)
_TWO: Any = np.int64(2)


def _divided(h: torch.Tensor) -> Any:
    return h / _TEMPERATURE


def _in_single_precision(h: torch.Tensor) -> Any:
    return (h * np.float32(0.3)).clamp(min=np.float32(-3))


def _from_the_left(h: torch.Tensor) -> Any:
    return np.sqrt(2.0) * h + np.float64(1) - h


def _whole_numbers(h: torch.Tensor) -> Any:
    return torch.cat([h, h], dim=_ONE).view(h.shape[0], _TWO, -1).sum(_ONE)


def _options(h: torch.Tensor) -> Any:
    return F.leaky_relu(torch.where(h > np.float64(0), h, np.float64(0.1)), np.float64(0.2))


def _masked(h: torch.Tensor) -> Any:
    return h.masked_fill(h > 0.5, -np.inf).exp()


def _root_of_a_width(h: torch.Tensor) -> Any:
    return h * np.sqrt(h.shape[-1])


def _root_of_the_batch(h: torch.Tensor) -> Any:
    return h / np.sqrt(h.size(0))


def _nested(h: torch.Tensor) -> Any:
    return h[:, : int(np.ceil(np.log(h.shape[0] + 20)))] / np.maximum(1.0, np.log2(h.shape[0] + 5))


def _power_of_a_size(h: torch.Tensor) -> Any:
    return h * np.power(h.shape[0], -0.5) + np.floor(h.shape[0] / 2)


def _product(h: torch.Tensor) -> Any:
    return h * (1 / np.prod(h.shape[1:])) + np.multiply(h.shape[0], np.float64(2))


def _arrays(h: torch.Tensor) -> Any:
    return h * torch.tensor(_TABLE, dtype=h.dtype) + torch.as_tensor(np.ones(6), dtype=h.dtype, device=h.device)


def _array_beside(h: torch.Tensor) -> Any:
    return h + h.new_tensor(np.array([0.5]))


_FORWARDS = [
    _divided, _in_single_precision, _from_the_left, _whole_numbers, _options, _masked, _root_of_a_width,
    _root_of_the_batch, _nested, _power_of_a_size, _product, _arrays,
    _array_beside,
]  # fmt: skip


class _Model(nn.Module):
    def __init__(self, between: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.first, self.between = nn.Linear(4, 6), between
        self.last: nn.Module = nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.between(self.first(x)))


def _traced(between: Callable[[torch.Tensor], Any]) -> tuple[nn.Module, gg.Graph]:
    torch.manual_seed(0)
    model, x = _Model(between), torch.randn(3, 4)
    model(x)
    model.double()
    return model, gg.trace(model, x.double(), way="fx")


@pytest.mark.parametrize("between", _FORWARDS, ids=lambda between: between.__name__.strip("_"))
def test_the_graph_computes_what_the_model_does(between: Callable[[torch.Tensor], Any]) -> None:
    model, graph = _traced(between)
    grown = [gg.apply(graph, mutation) for name in ("widen", "split") for mutation in graph.mutations(name)]
    assert grown or between is _nested  # whose slice is at a place
    for rows in (3, 2, 7):
        x = torch.randn(rows, 4, dtype=torch.float64)
        torch.testing.assert_close(graph.module(x), model(x), rtol=1e-14, atol=1e-15)
        for child in grown:
            torch.testing.assert_close(child.module(x), model(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("between", [_divided, _root_of_a_width, _arrays])
def test_what_is_written_down_holds_no_numpy(between: Callable[[torch.Tensor], Any], tmp_path: Path) -> None:
    _, graph = _traced(between)
    grown = gg.apply(graph, "split(first)")
    gg.save(grown, tmp_path / "saved")
    source = gg.export_source(grown, tmp_path / "source")
    assert "np." not in (tmp_path / "source" / source.path).read_text()
    assert gg.export_onnx(grown, tmp_path / "m.onnx", dtype=torch.float32).max_error < 1e-5


def _root_of_a_tensor(h: torch.Tensor) -> Any:
    return h + np.sqrt(h.abs().detach())


def _plus_an_array(h: torch.Tensor) -> Any:
    return h + (h.detach() * _TABLE).float()


def _cumulative_sizes(h: torch.Tensor) -> Any:
    return h * np.cumsum(h.shape)[0]


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (_root_of_a_tensor, r"np.sqrt is given a tensor.*torch's own functions.*test_of_numpy.py:\d+"),
        (_plus_an_array, r"is given a numpy array.*torch.from_numpy.*test_of_numpy.py:\d+"),
        (_cumulative_sizes, r"np.cumsum is given a value of the graph.*test_of_numpy.py:\d+"),
    ],
)
def test_what_numpy_would_look_into_is_refused(between: Callable[[torch.Tensor], Any], words: str) -> None:
    model = _Model(between)
    model.last = nn.Linear(6, 2)
    with pytest.raises(gg.CaptureError, match=words):
        capture(model, torch.randn(3, 4), way="fx")
