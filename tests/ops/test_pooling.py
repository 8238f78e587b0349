"""Pooling and interpolation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
PART = "free>free zero>zero mean>mean copy>copy share>share"
FINITE = "free>free zero>free mean>free copy>copy"


def _pool(target: Any, rank: int, argument: Any, batched: bool = True) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        lead = (2, 3) if batched else (3,)
        x = normal_tensor(draw, *lead, *(draw(4, 6) for _ in range(rank)))
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(argument)})
        return Probe(lambda m: op(target, m.x, argument), {"x": x})

    return build


def _interpolate(mode: str) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, 2, 3, draw(2, 4), draw(2, 4))
        return Probe(lambda m: op(F.interpolate, m.x, scale_factor=2, mode=mode), {"x": x})

    return build


def _same_size_window(draw: Draw) -> nn.Module:
    """A matrix for each row of the batch, in which a unit is compared with its neighbours."""
    return Probe(lambda m: op(F.max_pool2d, m.x, 3, 1, 1), {"x": normal_tensor(draw, 2, 4, 5)})


AVERAGES: list[tuple[Any, int]] = [
    (nn.AvgPool1d, 1), (nn.AvgPool2d, 2), (nn.AvgPool3d, 3), (F.avg_pool1d, 1), (F.avg_pool2d, 2), (F.avg_pool3d, 3),
    (torch.avg_pool1d, 1), (nn.AdaptiveAvgPool1d, 1), (nn.AdaptiveAvgPool2d, 2), (nn.AdaptiveAvgPool3d, 3),
    (F.adaptive_avg_pool1d, 1), (F.adaptive_avg_pool2d, 2), (F.adaptive_avg_pool3d, 3), (torch.adaptive_avg_pool1d, 1),
]  # fmt: skip
MAXIMA: list[tuple[Any, int]] = [
    (nn.MaxPool1d, 1), (nn.MaxPool2d, 2), (nn.MaxPool3d, 3), (F.max_pool1d, 1), (F.max_pool2d, 2), (F.max_pool3d, 3),
    (torch.max_pool1d, 1), (torch.max_pool2d, 2), (torch.max_pool3d, 3), (nn.AdaptiveMaxPool1d, 1),
    (nn.AdaptiveMaxPool2d, 2), (nn.AdaptiveMaxPool3d, 3), (F.adaptive_max_pool1d, 1), (F.adaptive_max_pool2d, 2),
    (F.adaptive_max_pool3d, 3),
]  # fmt: skip
POWERS: list[tuple[Any, int]] = [
    (nn.LPPool1d, 1), (nn.LPPool2d, 2), (nn.LPPool3d, 3), (F.lp_pool1d, 1), (F.lp_pool2d, 2), (F.lp_pool3d, 3),
]  # fmt: skip


def _powers(target: Any, rank: int) -> Callable[[Draw], nn.Module]:
    """Of order 2, over windows of 2."""

    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, 2, 3, *[4] * rank)
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(2, 2)})
        return Probe(lambda m: op(target, m.x, 2, 2), {"x": x})

    return build


def _on(target: Any, factor: int) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x, scale_factor=factor), {"x": normal_tensor(draw, 2, 3, 4, 4)})


def _windows(target: Any, shape: tuple[int, ...], *arguments: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, *shape)
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(*arguments)})
        return Probe(lambda m: op(target, m.x, *arguments), {"x": x})

    return build


def _sampled(draw: Draw) -> nn.Module:
    """An image x read at places y."""
    sources = {"x": normal_tensor(draw, 2, 3, 4, 4), "y": normal_tensor(draw, 2, 3, 2, 2).tanh()}
    return Probe(lambda m: op(F.grid_sample, m.x, m.y, align_corners=False), sources)


def _placed(draw: Draw) -> nn.Module:
    x = normal_tensor(draw, 2, 2, 3)
    return Probe(lambda m: op(F.affine_grid, m.x, (2, 5, 3, 3), align_corners=False), {"x": x})


def _channels(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


def _with_places(target: Any, rank: int) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        return Probe(lambda m: op(target, m.x, 2)[0], {"x": normal_tensor(draw, 2, 3, *[4] * rank)})

    return build


def _unpooled(target: Any, rank: int) -> Callable[[Draw], nn.Module]:
    """Values x put where the largest of y lay."""
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](2, return_indices=True)

    def build(draw: Draw) -> nn.Module:
        sources = {"x": normal_tensor(draw, 2, 3, *[2] * rank), "y": normal_tensor(draw, 2, 3, *[4] * rank)}
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x, m.pool(m.y)[1]), sources, {"op": target(2), "pool": pool})
        return Probe(lambda m: op(target, m.x, m.pool(m.y)[1], 2), sources, {"pool": pool})

    return build


WITH_PLACES: list[tuple[Any, int]] = [
    (F.max_pool1d_with_indices, 1), (F.max_pool2d_with_indices, 2), (F.max_pool3d_with_indices, 3),
    (F.adaptive_max_pool1d_with_indices, 1), (F.adaptive_max_pool2d_with_indices, 2),
    (F.adaptive_max_pool3d_with_indices, 3),
]  # fmt: skip
UNPOOLED: list[tuple[Any, int]] = [
    (nn.MaxUnpool1d, 1), (nn.MaxUnpool2d, 2), (nn.MaxUnpool3d, 3),
    (F.max_unpool1d, 1), (F.max_unpool2d, 2), (F.max_unpool3d, 3),
]  # fmt: skip
WITH_PLACE = "free>free zero>free,zero mean>free copy>copy"  # the place of a largest zero is any
READ = "free>free zero>zero mean>free copy>copy share>share"

CASES = [
    *(Case((target,), _with_places(target, rank), _channels(WITH_PLACE)) for target, rank in WITH_PLACES),
    *(Case((target,), _unpooled(target, rank), _channels(READ)) for target, rank in UNPOOLED),
    *(Case((target,), _pool(target, rank, 2), _channels(LINEAR)) for target, rank in AVERAGES),
    *(Case((target,), _pool(target, rank, 2), _channels(ZERO_KEEPING)) for target, rank in MAXIMA),
    *(Case((target,), _powers(target, rank), _channels("copy>copy")) for target, rank in POWERS),
    *(Case((target,), _on(target, 2), _channels(LINEAR))
      for target in (F.upsample, F.upsample_nearest, F.upsample_bilinear)),
    *(Case((target,), _pool(target, rank, 2, batched=False), {"x.0": LINEAR}, "unbatched")
      for target, rank in AVERAGES[:2]),
    *(Case((target,), _pool(target, rank, 2, batched=False), {"x.0": ZERO_KEEPING}, "unbatched")
      for target, rank in MAXIMA[:3]),
    Case((F.max_pool2d,), _same_size_window, {"x.0": ZERO_KEEPING}, "same-size"),
    Case((nn.Upsample,), lambda d: Probe(lambda m: m.op(m.x), {"x": normal_tensor(d, 2, 3, 4)},
                                         {"op": nn.Upsample(scale_factor=2)}), _channels(LINEAR)),
    *(Case((kind,), _pool(kind, 2, (5, 7)), _channels(LINEAR))
      for kind in (nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)),
    *(Case((F.interpolate,), _interpolate(mode), _channels(LINEAR), mode) for mode in ("nearest", "bicubic")),
    *(Case((target,), _windows(target, (2, 3, 4, 4), 2), _channels(LINEAR)) for target in (nn.Unfold, F.unfold)),
    *(Case((target,), _windows(target, (2, 12, 9), (4, 4), 2), {"x.0": LINEAR, "x.1:0": PART})
      for target in (nn.Fold, F.fold)),
    Case((F.grid_sample,), _sampled, {"x.0": "free>free zero>zero mean>free copy>copy share>share", "x.1": LINEAR}),
    Case((F.affine_grid,), _placed, {"x.0": LINEAR}),
]  # fmt: skip


test_square = squares(CASES, 2)


@pytest.mark.parametrize("functional", [False, True])
def test_an_autoencoder_that_remembers_where_its_maxima_lay(functional: bool) -> None:
    """As SegNet does: pooled values and their places go different ways, and meet again."""

    def run(m: Any, x: Any) -> Any:
        pool = partial(F.max_pool2d, kernel_size=2, return_indices=True) if functional else m.pool
        x, where = pool(torch.relu(m.first(x)))
        x = torch.relu(m.middle(x))
        return m.last(F.max_unpool2d(x, where, [2, 2]) if functional else m.unpool(x, where))

    torch.manual_seed(0)
    members = {"first": nn.Conv2d(2, 6, 3, padding=1), "middle": nn.Conv2d(6, 6, 3, padding=1)}
    pools = {"pool": nn.MaxPool2d(2, return_indices=True), "unpool": nn.MaxUnpool2d(2)}
    model = Forward(run, **members, **pools, last=nn.Conv2d(6, 1, 3, padding=1)).double()
    graph = gg.trace(model, torch.randn(2, 2, 8, 6).double())
    found = [*graph.mutations("widen"), *graph.mutations("split")]
    assert [str(mutation) for mutation in found] == ["widen(first, extra=3)", "split(first)"]
    for mutation in found:
        assert_preserved(graph, gg.apply(graph, mutation))
