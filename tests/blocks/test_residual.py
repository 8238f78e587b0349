"""Each block starts as identity, to the bit, and every parameter of it can learn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from graphgrow.blocks.block import Block
from graphgrow.blocks.residual import AttentionBlock, ConvBlock, IdentityLayer, MlpBlock, RepeatedLayer

C = 4


@dataclass(frozen=True)
class Case:
    """A block, the shape it is given without the batch axis, and its parameters in count."""

    label: str
    build: Callable[[], Block]
    shape: tuple[int, ...]
    count: int

    def __str__(self) -> str:
        return self.label


def _conv(dims: int, norm: nn.Module, activation: nn.Module) -> Callable[[], Block]:
    return lambda: ConvBlock(C, 6, 3, dims, norm, activation)


CASES = [
    # weights C -> 6 -> C of 3^dims each, a bias of C; a bias of 6 unless the norm takes it away, which has 2 x 6
    Case("conv1d", _conv(1, nn.Identity(), nn.ReLU()), (C, 7), 2 * C * 6 * 3 + C + 6),
    Case("conv2d", _conv(2, nn.BatchNorm2d(6), nn.ReLU()), (C, 5, 6), 2 * C * 6 * 9 + C + 12),
    Case("conv2d-groups", _conv(2, nn.GroupNorm(2, 6), nn.SiLU()), (C, 5, 6), 2 * C * 6 * 9 + C + 6 + 12),
    Case("conv2d-instance", _conv(2, nn.GroupNorm(6, 6), nn.SiLU()), (C, 5, 6), 2 * C * 6 * 9 + C + 12),
    Case("conv3d", _conv(3, nn.BatchNorm3d(6), nn.ELU()), (C, 4, 5, 3), 2 * C * 6 * 27 + C + 12),
    Case("mlp", lambda: MlpBlock(C, 6, nn.LayerNorm(C), nn.GELU()), (5, C), 2 * C * 6 + 6 + C + 2 * C),
    Case("mlp-rows", lambda: MlpBlock(C, 6, nn.BatchNorm1d(C), nn.ReLU()), (C,), 2 * C * 6 + 6 + C + 2 * C),
    # four squares, biases of all but the keys, the norm's weight and bias
    Case("attention", lambda: AttentionBlock(C, 2, nn.LayerNorm(C), False), (5, C), 4 * C * C + 3 * C + 2 * C),
    Case("causal", lambda: AttentionBlock(C, 1, nn.Identity(), True), (5, C), 4 * C * C + 3 * C),
    Case("identity", lambda: IdentityLayer(C, 3, 0), (5, C), C * C + C + 1),
    Case("identity-conv1d", lambda: IdentityLayer(C, 3, 1), (C, 6), C * C * 3 + C + 1),
    Case("identity-conv2d", lambda: IdentityLayer(C, 3, 2), (C, 5, 6), C * C * 9 + C + 1),
    Case("identity-conv3d", lambda: IdentityLayer(C, 3, 3), (C, 3, 4, 2), C * C * 27 + C + 1),
]


def started(case: Case, seed: int = 0) -> Block:
    block = copy.deepcopy(case.build())
    block.start(torch.Generator().manual_seed(seed))
    return block.double()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_it_starts_as_identity(case: Case, training: bool) -> None:
    block = started(case).train(training)
    assert sum(p.numel() for p in block.parameters()) == case.count
    for batch in (2, 3) if training else (1, 2, 3):
        for scale in (0.0, 1e-3, 1.0, 1e4, 1e18):
            x = scale * torch.randn(batch, *case.shape, dtype=torch.float64)
            assert torch.equal(block(x), x)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_parameter_has_a_gradient_within_two_steps(case: Case) -> None:
    """Not one that is rounding: a bias in front of a batch norm, or of the keys, would have 1e-17."""
    block = started(case).train()
    x = torch.randn(6, *case.shape, dtype=torch.float64)
    target = torch.randn(6, *case.shape, dtype=torch.float64)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.01)
    moving: list[set[str]] = []
    for _ in range(2):
        optimizer.zero_grad()
        (block(x) - target).square().sum().backward()
        optimizer.step()
        moving.append({name for name, p in block.named_parameters() if float(p.grad.abs().max()) > 1e-9})
    assert moving[0]
    assert moving[0] | moving[1] == {name for name, _ in block.named_parameters()}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("hidden", [2, 3])
def test_few_units_behind_inputs_of_one_sign_are_never_all_dead(hidden: int, sign: float) -> None:
    """As behind a sigmoid: of two or three units drawn by themselves each eighth or fourth block would never learn."""
    x = sign * (0.5 + 0.01 * torch.rand(4, C, 5, 5, dtype=torch.float64))
    for seed in range(20):
        for build in (
            lambda: ConvBlock(C, hidden, 3, 2, nn.Identity(), nn.ReLU()),
            lambda: ConvBlock(C, hidden, 3, 2, nn.Identity(), nn.ReLU6()),
            lambda: MlpBlock(C, hidden, nn.Identity(), nn.ReLU()),
        ):
            block = started(Case("", build, (), 0), seed)
            block(x if isinstance(block, ConvBlock) else x.movedim(1, -1)).square().sum().backward()
            closed = block.get_submodule(block.closed[0]).get_parameter("weight")
            assert closed.grad is not None
            assert closed.grad.any()


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Identity(), nn.GELU()], ids=lambda module: type(module).__name__)
def test_mirror_images_stand_in_front_of_rectifiers_alone(activation: nn.Module) -> None:
    """Under an odd function the two would learn the same for ever."""
    weight = started(Case("", lambda: MlpBlock(C, 6, nn.Identity(), activation), (), 0)).get_parameter("linear1.weight")
    assert not torch.equal(weight[1], -weight[0])


def test_behind_a_norm_units_are_drawn_by_themselves() -> None:
    """A group norm over a unit and its mirror image would leave their sign alone."""
    weight = started(Case("", _conv(2, nn.GroupNorm(3, 6), nn.ReLU()), (), 0)).get_parameter("conv1.weight")
    assert not torch.equal(weight[1], -weight[0])


def test_no_token_sees_a_later_one() -> None:
    """Opened, the causal block's output at t does not move with what stands behind t; the other's does."""
    for causal in (True, False):
        block = started(Case("", lambda: AttentionBlock(C, 2, nn.LayerNorm(C), causal), (5, C), 0))  # noqa: B023
        nn.init.eye_(block.get_parameter("output.weight"))
        x = torch.randn(2, 5, C, dtype=torch.float64)
        moved = x.clone()
        moved[:, 3:] += 1
        assert torch.equal(block(x)[:, :3], block(moved)[:, :3]) is causal
        assert not torch.equal(block(x)[:, 3:], block(moved)[:, 3:])


def test_attention_is_torchs_own() -> None:
    """With the same projections it is nn.MultiheadAttention."""
    block = AttentionBlock(8, 2, nn.Identity(), False)
    block.start(torch.Generator().manual_seed(0))
    nn.init.normal_(block.output.weight)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key.weight, block.value.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(block.output.weight)
        theirs.out_proj.bias.zero_()
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(block(x) - x, theirs(x, x, x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_starts_as_identity_in_narrow_types(case: Case, dtype: torch.dtype) -> None:
    block = started(case).to(dtype).eval()
    x = torch.randn(2, *case.shape).to(dtype)
    assert torch.equal(block(x), x)


def test_a_kernel_without_a_middle_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a kernel of \(3, 2\) has no middle; odd sizes are wanted"):
        RepeatedLayer(C, (3, 2), True, nn.ReLU())
