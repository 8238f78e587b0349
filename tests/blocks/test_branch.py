"""Branches: closed at the start, open the sum that they say, every weight alive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.blocks.block import Block
from graphgrow.blocks.branch import ConvBranch, MlpBranch, PoolBranch
from graphgrow.rewrite.insert import _BlockTracer

POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
CONVS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _conv(dims: int) -> Block:
    conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 1]
    return ConvBranch(conv(3, 5, 3, stride=2, padding=1, bias=False), norm(5), nn.GELU(), 5, 4, dims)


def _pool(dims: int) -> Block:
    return PoolBranch(3, 4, dims, (3,) * dims, (2,) * dims, (1,) * dims)


MAKERS: dict[str, tuple[Callable[[], Block], tuple[int, ...], tuple[int, ...]]] = {
    **{f"conv-{d}d": (partial(_conv, d), (2, 3, 7, 6, 5)[: d + 2], (2, 4, 4, 3, 3)[: d + 2]) for d in (1, 2, 3)},
    **{f"pool-{d}d": (partial(_pool, d), (2, 3, 7, 6, 5)[: d + 2], (2, 4, 4, 3, 3)[: d + 2]) for d in (1, 2, 3)},
    "mlp": (lambda: MlpBranch(3, 5, 4, nn.GELU()), (2, 6, 3), (2, 6, 4)),
    "low-rank": (lambda: MlpBranch(3, 2, 4, nn.Identity()), (2, 3), (2, 4)),
}


def built(label: str) -> tuple[Block, torch.Tensor, torch.Tensor]:
    make, x, y = MAKERS[label]
    block = make()
    block.start(torch.Generator().manual_seed(0))
    return block.double(), torch.randn(x, dtype=torch.float64), torch.randn(y, dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("label", MAKERS)
def test_closed_it_is_what_stands_beside_it(label: str, training: bool) -> None:
    block, x, y = built(label)
    for scale in (1.0, 1e18, -1e18):
        assert torch.equal(block.train(training)(scale * x, y), y)


@pytest.mark.parametrize("label", MAKERS)
def test_every_weight_learns_within_two_steps(label: str) -> None:
    block, x, y = built(label)
    optimizer = torch.optim.SGD(block.parameters(), lr=1e-2)
    moved: set[str] = set()
    for step in range(2):
        optimizer.zero_grad()
        (block(x, y) * torch.randn(y.shape, dtype=torch.float64)).sum().backward()
        now = {name for name, p in block.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 1e-9}
        assert "last.weight" in now or step
        moved |= now
        optimizer.step()
    assert moved == {name for name, _ in block.named_parameters()}
    assert not any(name.startswith("last.bias") for name, _ in block.named_parameters())


@pytest.mark.parametrize("label", MAKERS)
def test_open_it_adds_what_it_says(label: str) -> None:
    block, x, y = built(label)
    generator = torch.Generator().manual_seed(1)
    for tensor in [*block.parameters(), *(b for b in block.buffers() if b.is_floating_point())]:
        tensor.data.uniform_(0.2, 1.0, generator=generator)
    tensors = dict([*block.named_parameters(), *block.named_buffers()])
    last = tensors["last.weight"]
    dims = x.dim() - 2
    if label.startswith("conv"):
        h = CONVS[dims](x, tensors["first.weight"], stride=2, padding=1)
        shape = (1, -1, *[1] * dims)
        mean, var, gain, bias = (
            tensors[f"norm.{name}"].reshape(shape) for name in ("running_mean", "running_var", "weight", "bias")
        )
        h = F.gelu((h - mean) / (var + 1e-5).sqrt() * gain + bias)
    elif label.startswith("pool"):
        h = POOLS[dims](x, 3, 2, 1)
    else:
        h = x @ tensors["first.weight"].T
        h = F.gelu(h) if label == "mlp" else h
    branch = CONVS[dims](h, last) if last.dim() > 2 else h @ last.T
    assert torch.allclose(block.eval()(x, y), y + branch, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("label", MAKERS)
def test_it_can_be_written_into_a_graph(label: str) -> None:
    block, x, y = built(label)
    block.eval()
    graph = _BlockTracer().trace(block)
    assert all(node.op in ("placeholder", "call_module", "call_function", "output") for node in graph.nodes)
    assert torch.equal(torch.fx.GraphModule(block, graph)(x, y), block(x, y))
