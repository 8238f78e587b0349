"""Functions that a trace calls otherwise than the model does: checkpoints, autocast; parts under torch.compile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import checkpoint as checkpoints
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import graphgrow as gg
from graphgrow.capture.stand_ins.functions import calls_seen
from graphgrow.store.names import import_torchvision
from tests.preserved import assert_preserved


class Parts(nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self._run = nn.Linear(3, 4), nn.Linear(4, 2), run
        self.body = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self._run(self.body, self.first(x)))
        return result


CHECKPOINTED: dict[str, Callable[..., Any]] = {
    "a submodule": lambda body, x: checkpoint(body, x, use_reentrant=False),
    "reentrant": lambda body, x: checkpoint(body, x, use_reentrant=True),
    "a function of several": lambda body, x: checkpoint(
        lambda a, b, scale: body(a) + b * scale, x, x, scale=2.0, use_reentrant=False
    ),
    "in segments": lambda body, x: checkpoint_sequential(body, 2, x, use_reentrant=False),
    "functions in segments": lambda body, x: checkpoints.checkpoint_sequential(
        [body[0], torch.relu, body[2]], 2, x, use_reentrant=False
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_what_is_checkpointed_grows_like_any_part(name: str) -> None:
    model = Parts(CHECKPOINTED[name])
    graph = gg.trace(model, torch.randn(2, 3))
    assert graph.way == "fx"
    x = torch.randn(5, 3)
    assert torch.equal(graph.module(x), model(x))
    for text in ("widen(body.0, extra=2)", "split(body.0)"):
        assert_preserved(graph, gg.apply(graph, text))
    code = checkpoint.__code__
    gg.trace(model, torch.randn(2, 3))
    assert checkpoint.__code__ is code


@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_compiled_parts_are_looked_into(way: str) -> None:
    torch.manual_seed(0)
    inner: Any = torch.compile(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), backend="eager")
    model = nn.Sequential(nn.Linear(3, 4), inner, nn.Linear(5, 2))
    x = torch.randn(2, 3)
    before = model(x)
    graph = gg.trace(model, x, way=way)
    assert "`1` was compiled by torch.compile" in graph.explain()
    assert set(graph.module.state_dict()) == set(model.state_dict())
    for text in ("widen(0, extra=2)", "widen(1._orig_mod.0, extra=2)", "split(1._orig_mod.0)"):
        assert_preserved(graph, gg.apply(graph, text))
    assert torch.equal(model(x), before)
    with pytest.raises(gg.CaptureError, match=r'under torch.compile; name "1._orig_mod"'):
        gg.trace(model, x, leaves=["1"])
    leaf = gg.trace(model, x, leaves=["1._orig_mod"])
    assert_preserved(leaf, gg.apply(leaf, "add-branch(2, kind=mlp)"))
    assert torch.equal(model(x), before)


class Experts(nn.Module):
    """Rows by the matrix of their expert, by the kernel that transformers picks: it takes whole eights in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(3, 8), nn.Parameter(torch.randn(2, 8, 8))
        self.register_buffer("offs", torch.tensor([2, 5], dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moe = sys.modules["transformers.integrations.moe"]
        result: torch.Tensor = moe._grouped_mm(self.first(x), self.weight, offs=self.offs)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_of_transformers_multiply_as_where_they_are_compiled(dtype: torch.dtype) -> None:
    import_torchvision()
    moe = pytest.importorskip("transformers.integrations.moe")
    code, model, x = moe._can_use_grouped_mm.__code__, Experts().to(dtype), torch.randn(5, 3).to(dtype)
    graph = gg.trace(model, x, way="fx")
    assert moe._can_use_grouped_mm.__code__ is code
    assert torch.equal(graph.module(x), model(x))
    child = gg.apply(graph, "widen(first, extra=1)")  # 9 is no width of torch's own kernel
    assert gg.verify(graph, child).preserved


def _without_rounding(body: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        result: torch.Tensor = body(x)
    return result


def test_a_region_without_autocast_names_the_device_of_a_tensor() -> None:
    model = Parts(_without_rounding)
    graph, x = gg.trace(model, torch.randn(3, 3), way="fx"), torch.randn(5, 3)
    assert torch.equal(graph.module(x), model(x))
    assert_preserved(graph, gg.apply(graph, "widen(body.0, extra=2)"))


def test_every_name_of_a_function_leads_to_the_other_one() -> None:
    def outer(step: int) -> Callable[..., int]:
        def inner(x: int, *, by: int = 1) -> int:
            return x + step * by

        return inner

    function = outer(10)
    names = {"kept": function}

    def other(original: Callable[..., int]) -> Callable[..., int]:
        return lambda *args, **kwargs: -original(*args, **kwargs)

    with calls_seen({function: other}):
        assert (function(1), names["kept"](1, by=2)) == (-11, -21)
    assert (function(1), names["kept"](1, by=2)) == (11, 21)
    with pytest.raises(ZeroDivisionError), calls_seen({function: other}):
        raise ZeroDivisionError
    assert function(1) == 11
