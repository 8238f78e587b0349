"""Operators on the meta device: what is kept is what they would answer, and nothing is kept that could be another."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import answers as answers_module
from graphgrow.ir.answers import Answers

IMAGE = (2, 3, 8, 8)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


class Counted:
    """Calls through answers, and how often that made a call of the operator's own."""

    def __init__(self) -> None:
        self.answers, self.runs = Answers(), 0

    def __call__(self, called: Any, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            self.runs += 1
            return getattr(args[0], called)(*args[1:], **kwargs) if isinstance(called, str) else called(*args, **kwargs)

        with torch.no_grad():
            return self.answers.of(called, args, kwargs, run)


def form(result: Any) -> tuple[Any, ...]:
    if isinstance(result, tuple):
        return tuple(map(form, result))
    tensor: torch.Tensor = result
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.untyped_storage().nbytes()


def calls() -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Forms of call that lie near each other."""
    image, rows = meta(*IMAGE), meta(4, 6)
    last = meta(2, 8, 8, 3).permute(0, 3, 1, 2)
    whole = meta(4, 6, dtype=torch.int64)
    for x in (image, last, image[:, :2], image.double()):
        yield F.interpolate, (x,), {"scale_factor": 2, "mode": "bilinear"}
        yield F.interpolate, (x,), {"scale_factor": 2.0, "mode": "nearest"}
        yield F.gelu, (x,), {}
        yield torch.cat, ([x, x],), {"dim": 1}
        yield torch.cat, ((x, x),), {"dim": -1}
        yield "sum", (x, (2, 3)), {"keepdim": True}
        yield "sum", (x, (2, 3)), {"keepdim": False}
        yield "contiguous", (x,), {}
        yield "clone", (x,), {"memory_format": torch.channels_last}
    for number in (2, 2.0, True):
        yield operator.mul, (whole, number), {}
        yield operator.truediv, (whole, number), {}
    yield operator.matmul, (rows, rows.t()), {}
    yield operator.matmul, (rows.t(), rows), {}
    yield operator.getitem, (rows, (slice(None), None, [0, 2])), {}
    yield operator.getitem, (rows, (slice(1, None, 2), None, [0, 2])), {}
    for layer in (nn.LayerNorm(6), nn.LayerNorm(6, bias=False), nn.Linear(6, 3), nn.Linear(6, 4), nn.Softmax(1)):
        yield layer.to("meta"), (rows,), {}
    for options in ({}, {"batch_first": True}, {"bidirectional": True, "num_layers": 2}):
        for kind in (nn.LSTM, nn.GRU, nn.RNN):
            yield kind(6, 3, **options).to("meta"), (meta(2, 5, 6),), {}
    yield nn.LSTM(6, 3).to("meta"), (meta(5, 6),), {}
    yield nn.LSTM(6, 3).to("meta"), (meta(2, 5, 6), (meta(1, 5, 3), meta(1, 5, 3))), {}
    yield torch.var_mean, (rows,), {"dim": 1}
    for padding in (0, 1):
        yield nn.MaxPool2d(2, padding=padding), (image,), {}
        yield (
            nn.Conv2d(3, 5, 3, padding=padding, padding_mode="circular" if padding else "zeros").to("meta"),
            (last,),
            {},
        )


def test_what_is_kept_is_what_the_operator_answers() -> None:
    counted, wanted = Counted(), list[Any]()
    listed = list(calls())
    for called, args, kwargs in listed:
        fresh = Counted()(called, *args, **kwargs)
        wanted.append(form(fresh))
        assert form(counted(called, *args, **kwargs)) == wanted[-1]
    once = counted.runs
    for (called, args, kwargs), expected in zip(listed, wanted, strict=True):
        assert form(counted(called, *args, **kwargs)) == expected
    assert counted.runs - once <= 8  # what returns views, or its own argument
    assert once == len(listed)  # no two forms were taken for one


def test_each_answer_has_memory_of_its_own() -> None:
    counted, x = Counted(), meta(4, 6)
    pairs = [counted(torch.var_mean, x, dim=1) for _ in range(2)]
    assert counted.runs == 1
    assert len({t.untyped_storage()._cdata for t in (x, *pairs[0], *pairs[1])}) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_dtype_is_part_of_a_form(dtype: torch.dtype) -> None:
    counted, before = Counted(), torch.get_default_dtype()
    counted(operator.truediv, meta(3, dtype=torch.int64), 2)
    try:
        torch.set_default_dtype(dtype)
        assert counted(operator.truediv, meta(3, dtype=torch.int64), 2).dtype == dtype
    finally:
        torch.set_default_dtype(before)


def test_views_and_writes_are_made_each_time() -> None:
    counted, x = Counted(), meta(4, 6)
    for _ in range(2):
        assert all(part.untyped_storage()._cdata == x.untyped_storage()._cdata for part in counted("unbind", x, 1))
        assert counted("view", x, 24).untyped_storage()._cdata == x.untyped_storage()._cdata
        assert counted(F.dropout, x, training=False).untyped_storage()._cdata == x.untyped_storage()._cdata
        before = x._version
        assert counted("add_", x, 1) is x
        assert counted(torch.add, x, 1, out=x) is x
        assert x._version == before + 2
    assert counted.runs == 10


def test_numbers_and_what_is_not_torchs_are_asked_each_time() -> None:
    sizes = [3, 5]

    def users(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(sizes.pop())

    class Users(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(sizes.pop())

    counted, x = Counted(), meta(4, 6)
    assert [counted(users, x).shape[0] for _ in range(2)] == [5, 3]
    sizes += [3, 5]
    layer = Users(6, 6).to("meta")
    assert [counted(layer, x).shape[0] for _ in range(2)] == [5, 3]
    assert [float(counted(torch.add, torch.tensor(number), 1)) for number in (1.0, 2.0)] == [2.0, 3.0]


def test_a_layer_that_is_changed_has_another_form() -> None:
    counted, x = Counted(), meta(*IMAGE)
    layer: Any = nn.Conv2d(3, 4, 3).to("meta")
    assert counted(layer, x).shape[-1] == 6
    layer.padding = (1, 1)
    assert counted(layer, x).shape[-1] == 8
    layer.weight = nn.Parameter(meta(7, 3, 3, 3))
    layer.bias = nn.Parameter(meta(7))
    assert counted(layer, x).shape == (2, 7, 8, 8)


def test_errors_come_each_time() -> None:
    counted: Callable[..., Any] = Counted()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reduction dim"):
            counted(F.linear, meta(4, 6), meta(3, 5))


def test_a_class_of_layers_that_is_patched_has_another_form(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, x = Counted(), meta(4, 6)
    layer = nn.Linear(6, 3).to("meta")
    assert counted(layer, x).shape == (4, 3)
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x.new_zeros(5))
    assert counted(layer, x).shape == (5,)


def test_so_many_forms_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "_MOST", 2)
    counted = Counted()
    for width in (3, 4, 5, 5, 3):
        assert counted(F.gelu, meta(2, width)).shape == (2, width)
    assert counted.runs == 4  # with the third form it began anew


def test_copies_begin_with_nothing() -> None:
    counted, x = Counted(), meta(4, 6)
    counted(F.gelu, x)
    counted.answers = pickle.loads(pickle.dumps(counted.answers))
    assert counted(F.gelu, x).shape == (4, 6)
    assert counted.runs == 2
