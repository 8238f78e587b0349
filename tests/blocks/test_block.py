"""How the weights of a block start."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from graphgrow.blocks.block import Block, conv
from graphgrow.layers import Blend, Gate


class Every(Block):
    """One of each part that `start` knows, one map of each kind closed."""

    closed: ClassVar[tuple[str, ...]] = ("last", "inner.1")

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(64, 32, 3)
        self.middle = nn.Linear(400, 300)
        self.last = nn.Linear(300, 30)
        self.inner = nn.Sequential(nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3, bias=False))
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.RMSNorm(8)])
        self.gate, self.blend = Gate(), Blend(nn.ReLU(), nn.GELU())


def started(seed: int = 3) -> Every:
    """Started from memory that holds anything, as `to_empty` leaves it."""
    block = Every()
    with torch.no_grad():
        for tensor in [*block.parameters(), *block.buffers()]:
            tensor.fill_(7)
    block.start(torch.Generator().manual_seed(seed))
    return block


def test_every_tensor_is_started() -> None:
    assert not any(bool((t == 7).any()) for t in [*started().parameters(), *started().buffers()])


@pytest.mark.parametrize(("name", "fan"), [("first", 64 * 9), ("middle", 400)])
def test_maps_are_he_normal(name: str, fan: int) -> None:
    """Deviation sqrt(2 / fan in); biases zero."""
    part = started().get_submodule(name)
    weight = part.get_parameter("weight")
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / fan), rel=0.02)
    assert abs(float(weight.detach().mean())) < 0.05 * math.sqrt(2 / fan)
    assert not part.get_parameter("bias").any()


def test_closed_maps_gates_and_shares_are_zero() -> None:
    block = started()
    for tensor in (block.last.weight, block.last.bias, block.inner[1].weight, block.gate.gate, block.blend.s):
        assert not tensor.any()
    assert block.inner[0].weight.all()


def test_norms_are_at_one() -> None:
    block = started()
    for norm in block.norms:
        assert bool((norm.get_parameter("weight") == 1).all())
        assert "bias" not in dict(norm.named_parameters()) or not norm.get_parameter("bias").any()
    statistics = dict(block.norms[0].named_buffers())
    assert not statistics["running_mean"].any()
    assert bool((statistics["running_var"] == 1).all())
    assert int(statistics["num_batches_tracked"]) == 0


def test_the_generator_decides() -> None:
    """And nothing else: neither the global random state is read, nor is it moved."""
    before = torch.get_rng_state()
    first, again, other = started(3), started(3), started(4)
    assert torch.equal(first.middle.weight, again.middle.weight)
    assert not torch.equal(first.middle.weight, other.middle.weight)
    block = Every()
    state = torch.get_rng_state()
    block.start(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(block.middle.weight, first.middle.weight)
    torch.set_rng_state(before)


@pytest.mark.parametrize(("dims", "kind"), [(1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)])
def test_convolutions_by_their_dimensions(dims: int, kind: type[nn.Module]) -> None:
    made = conv(dims, 2, 3, 1, bias=False)
    assert type(made) is kind
    assert made.get_parameter("weight").shape == (3, 2, *[1] * dims)
