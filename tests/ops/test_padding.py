"""Padding: numbers put around what is there, also around channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
FINITE = "free>free zero>free mean>free copy>copy"


def _channels(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


def _axes(*numbers: int) -> dict[str, str]:
    return {f"x.{number}": LINEAR for number in numbers}


def _pad(*arguments: Any, target: Any = F.pad) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, 2, 3, draw(4, 5), draw(4, 5))
        return Probe(lambda m: op(target, m.x, *arguments), {"x": x})

    return build


def _pad_module(kind: Any, arguments: Any, rank: int) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, 2, 3, *(draw(3, 5) for _ in range(rank)))
        return Probe(lambda m: m.op(m.x), {"x": x}, {"op": kind(*arguments)})

    return build


PADS: list[tuple[Any, Any, int, str]] = [
    (nn.ConstantPad1d, (2, 0.0), 1, LINEAR), (nn.ConstantPad2d, (1, 0.5), 2, FINITE),
    (nn.ZeroPad1d, (1,), 1, LINEAR), (nn.ZeroPad2d, (1,), 2, LINEAR),
    (nn.ReflectionPad1d, (1,), 1, LINEAR), (nn.ReflectionPad2d, (1,), 2, LINEAR),
    (nn.ReplicationPad1d, (2,), 1, LINEAR), (nn.ReplicationPad2d, ((1, 0, 2, 1),), 2, LINEAR),
    (nn.ConstantPad3d, (1, 0.0), 3, LINEAR), (nn.ZeroPad3d, (1,), 3, LINEAR),
    (nn.ReflectionPad3d, (1,), 3, LINEAR), (nn.ReplicationPad3d, (1,), 3, LINEAR),
    (nn.CircularPad1d, (1,), 1, LINEAR), (nn.CircularPad2d, (1,), 2, LINEAR),
    (nn.CircularPad3d, (1,), 3, LINEAR),
]  # fmt: skip

CASES = [
    *(Case((kind,), _pad_module(kind, arguments, rank), _channels(table)) for kind, arguments, rank, table in PADS),
    Case((torch._C._nn.pad,), _pad((1, 2), target=torch._C._nn.pad), _axes(0, 1, 2, 3), "of-dynamo"),
    Case((F.pad,), _pad((1, 2)), _axes(0, 1, 2, 3), "last-axis"),
    Case((F.pad,), _pad((0, 0, 0, 0, 1, 1)), _axes(0, 1, 2, 3), "channels"),
    Case((F.pad,), _pad((0, 0, 1, 0, 0, 2)), _axes(0, 1, 2, 3), "two-axes"),
    Case((F.pad,), _pad((0, -1, 0, 0, 1, 1)), _axes(0, 1, 2), "cut"),
    Case((F.pad,), _pad((1, 1, 1, 0), "reflect"), _channels(LINEAR), "reflect"),
    Case((F.pad,), _pad((1, 1), "constant", 2.5), {**_channels(FINITE), "x.2": FINITE}, "away-from-zero"),
]  # fmt: skip


test_square = squares(CASES, 2)


def _subsampled(around: tuple[int, int], cut: bool = False) -> gg.Graph:
    """As the ResNets of CIFAR: where a stage is wider, zeros lie around the channels of the shortcut."""

    def run(m: Any, x: torch.Tensor) -> Any:
        x = torch.relu(m.first(x))
        y = m.norm(m.inner(x))
        y = y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *around))
        y = F.pad(y, (0, 0, 0, 0, 0, -1)) if cut else y
        return m.last(torch.relu(y).mean((2, 3)))

    torch.manual_seed(0)
    width = 3 + sum(around)
    layers = {"first": nn.Conv2d(2, 3, 3, padding=1), "inner": nn.Conv2d(3, width, 3, 2, 1)}
    model = Forward(run, **layers, norm=nn.BatchNorm2d(width), last=nn.Linear(width - cut, 2)).double()
    return gg.trace(model, torch.randn(2, 2, 6, 6).double())


@pytest.mark.parametrize("around", [(1, 2), (0, 2), (2, 0)])
def test_zeros_around_the_channels_of_a_shortcut_are_parts_of_the_wider_stage(around: tuple[int, int]) -> None:
    graph = _subsampled(around)
    offered = [str(m) for kind in ("widen", "split") for m in graph.mutations(kind)]
    assert len(offered) == 2 * (1 + len([amount for amount in around if amount]))
    for mutation in offered:
        child = gg.apply(graph, mutation)
        assert_preserved(graph, child)
    child = gg.apply(graph, "widen(first, extra=4)")
    assert child.module.get_parameter("inner.weight").shape[0] == 7 + sum(around)
    assert gg.clean(child).parameter_count == graph.parameter_count


def test_by_hand_new_channels_lie_before_the_zeros_behind() -> None:
    graph = _subsampled((1, 2))
    child = gg.apply(graph, "widen(first, extra=1)")
    old, new = graph.module.get_parameter("inner.bias"), child.module.get_parameter("inner.bias")
    assert torch.equal(new[[0, 1, 2, 3, 5, 6]], old)
    wider = gg.apply(graph, "widen(inner:2, extra=2)")
    (padded,) = [n for n in wider.module.graph.nodes if "pad" in n.name]
    assert tuple(padded.args[1]) == (0, 0, 0, 0, 1, 4)


def test_channels_that_are_cut_off_do_not_grow() -> None:
    graph = _subsampled((1, 2), cut=True)
    assert "an axis that is padded" in graph.explain()
    assert not list(graph.mutations("widen"))
