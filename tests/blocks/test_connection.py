"""Connections: closed at the start, and open what they say, for maps and features of any size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.blocks.block import Block
from graphgrow.blocks.connection import GatedSkip, ProjectedFeatures, ProjectedMaps
from graphgrow.rewrite.insert import _BlockTracer

POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
CONVS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAKERS: dict[str, tuple[Callable[[], Block], tuple[int, ...], tuple[int, ...]]] = {
    "gate": (GatedSkip, (2, 3, 5), (2, 3, 5)),
    "features": (lambda: ProjectedFeatures(3, 4), (2, 6, 3), (2, 6, 4)),
    "equal": (lambda: ProjectedMaps(3, 4, 2, None), (2, 3, 5, 6), (2, 4, 5, 6)),
    **{f"pool-{d}d": (partial(ProjectedMaps, 3, 4, d, "pool"), (2, 3, 8, 6, 4)[: d + 2], (2, 4, 4, 2, 4)[: d + 2])
       for d in (1, 2, 3)},
    **{f"near-{d}d": (partial(ProjectedMaps, 3, 4, d, "nearest"), (2, 3, 3, 7, 2)[: d + 2], (2, 4, 7, 4, 2)[: d + 2])
       for d in (1, 2, 3)},
}  # fmt: skip


def built(label: str) -> tuple[Block, torch.Tensor, torch.Tensor]:
    make, source, target = MAKERS[label]
    block = make()
    block.start(torch.Generator().manual_seed(0))
    return block.double(), torch.randn(source, dtype=torch.float64), torch.randn(target, dtype=torch.float64)


@pytest.mark.parametrize("label", MAKERS)
def test_closed_it_is_the_target_and_learns_at_once(label: str) -> None:
    block, source, target = built(label)
    for scale in (1.0, 1e18, -1e18):
        assert torch.equal(block(scale * source, target), target)
    block(source, target).square().sum().backward()
    gradients = [parameter.grad for parameter in block.parameters()]
    assert len(gradients) == 1
    assert gradients[0] is not None
    assert float(gradients[0].abs().max()) > 0


def expected(label: str, weight: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What an open connection computes, by torch's own functions of fixed windows and sizes."""
    if label == "gate":
        return target + weight * source
    if label == "features":
        return target + source @ weight.T
    dims = source.dim() - 2
    if label.startswith("pool"):
        source = POOLS[dims](source, tuple(a // b for a, b in zip(source.shape[2:], target.shape[2:], strict=True)))
    if label.startswith("near"):
        source = F.interpolate(source, size=tuple(target.shape[2:]))
    return target + CONVS[dims](source, weight)


@pytest.mark.parametrize("label", MAKERS)
def test_open_it_adds_what_it_says(label: str) -> None:
    block, source, target = built(label)
    (weight,) = block.parameters()
    nn.init.normal_(weight.data)
    found = block(source, target)
    assert torch.allclose(found, expected(label, weight, source, target), rtol=1e-12, atol=1e-12)
    assert found.shape == target.shape


@pytest.mark.parametrize("resize", ["pool", "nearest"])
def test_the_resolution_is_read_off_the_target(resize: str) -> None:
    block = ProjectedMaps(3, 4, 2, resize)
    for size in ((3, 3), (5, 2), (1, 1), (9, 9)):
        target = torch.randn(1, 4, *size)
        assert block(torch.randn(1, 3, 9, 9), target).shape == target.shape


@pytest.mark.parametrize("label", MAKERS)
def test_it_can_be_written_into_a_graph(label: str) -> None:
    block, source, target = built(label)
    graph = _BlockTracer().trace(block)
    assert [node.op for node in graph.nodes][:2] == ["placeholder", "placeholder"]
    assert torch.equal(torch.fx.GraphModule(block, graph)(source, target), block(source, target))
