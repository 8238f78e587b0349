"""deepen(kind=copy): what is kept of the original, what is closed, and what comes behind a gate."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.store.names import import_torchvision
from tests.passes.claims import assert_alive, assert_exact, grown, stirred
from tests.passes.masked import masked
from tests.rewrite.small_models import Forward

import_torchvision()
resnet, convnext, efficientnet, mobilenet = (
    importlib.import_module(f"torchvision.models.{name}")
    for name in ("resnet", "convnext", "efficientnet", "mobilenetv3")
)


def test_a_copy_keeps_the_mask_and_the_memory() -> None:
    """Opened, position 0 still sees position 0 alone."""
    graph = masked()
    child = grown(graph, "deepen(a, kind=copy)")
    assert "a_deepen_gate.gate.gate" not in dict(child.module.named_parameters())
    assert_exact(graph, child)
    assert_alive(graph, child)
    with torch.no_grad():
        for name, parameter in child.module.named_parameters():
            if name.startswith("a_deepen.attention.out_proj"):
                parameter.copy_(torch.randn_like(parameter))
    (x, _, memory), _ = graph.inputs.sample(1)
    mask = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
    moved = memory.clone()
    moved[:, 1:] += 1
    first, second = child.module(x, mask, memory), child.module(x, mask, moved)
    torch.testing.assert_close(first[:, 0], second[:, 0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(first[:, 1:], second[:, 1:])
    assert not torch.allclose(first, graph.module(x, mask, memory))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_encoder_of_torch(norm_first: bool, batch_first: bool) -> None:
    """Pre-norm layers are closed; post-norm ones come behind a gate, LN(x + 0) not being x."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, norm_first=norm_first, batch_first=batch_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = Forward(
        lambda m, x: m.head(m.encoder(m.stem(x))), stem=nn.Linear(3, 8), encoder=encoder, head=nn.Linear(8, 2)
    )
    graph = gg.trace(stirred(model).double(), torch.randn(3, 5, 3, dtype=torch.float64))
    child = grown(graph, "deepen(encoder.layers.0, kind=copy)")
    gates = [name for name, _ in child.module.named_parameters() if name.endswith("gate.gate")]
    assert len(gates) == (not norm_first)
    assert_exact(graph, child)
    assert_alive(graph, child)
    listed = {str(mutation) for mutation in graph.mutations("deepen")}
    assert {"deepen(encoder.layers.0, kind=copy)", "deepen(encoder.layers.1, kind=copy)"} <= listed
    if batch_first:
        assert_exact(graph, grown(graph, "deepen(encoder.layers.0, kind=attention)"))
    else:
        with pytest.raises(gg.Declined, match="the first axis is the sequence"):
            gg.apply(graph, "deepen(encoder.layers.0, kind=attention)")


def test_the_decoder_of_torch() -> None:
    """The stream is what comes first, not the memory of the same shape."""
    layer = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0, batch_first=True, norm_first=True)

    class Decodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layers, self.head = (
                nn.Linear(3, 8),
                nn.ModuleList([layer, copy.deepcopy(layer)]),
                nn.Linear(8, 2),
            )

        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            x, memory = self.stem(x), self.stem(memory)
            for inner in self.layers:
                x = inner(x, memory)
            result: torch.Tensor = self.head(x)
            return result

    x = torch.randn(2, 5, 3, dtype=torch.float64)
    graph = gg.trace(Decodes().double(), (x, x.flip(0)))
    child = grown(graph, "deepen(layers.1, kind=copy)")
    closed = {
        name
        for name, p in child.module.named_parameters()
        if "deepen" in name and name.endswith("weight") and not p.any()
    }
    assert closed == {
        "layers.1_deepen.self_attn.out_proj.weight", "layers.1_deepen.multihead_attn.out_proj.weight",
        "layers.1_deepen.linear2.weight",
    }  # fmt: skip
    assert_exact(graph, child)


# -- torchvision's blocks ------------------------------------------------------------------------------------


def mbconv() -> nn.Module:
    configuration = efficientnet.MBConvConfig(2, 3, 1, 8, 8, 1)
    block: nn.Module = efficientnet.MBConv(configuration, 0.0, nn.BatchNorm2d)
    return block


def inverted() -> nn.Module:
    configuration = mobilenet.InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 1.0)
    block: nn.Module = mobilenet.InvertedResidual(configuration, nn.BatchNorm2d)
    return block


BLOCKS: dict[str, tuple[Callable[[], nn.Module], str]] = {  # the block over 8 channels, and what is closed
    "basic": (lambda: resnet.BasicBlock(8, 8), "bn2"),
    "bottleneck": (lambda: resnet.Bottleneck(8, 2), "bn3"),
    "convnext": (lambda: convnext.CNBlock(8, 1e-6, 0.0), "block.5"),
    "mbconv": (mbconv, "block.3.1"),
    "inverted": (inverted, "block.3.1"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_torchvision(name: str) -> None:
    build, closed = BLOCKS[name]
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    model = nn.Sequential(stem, build(), build(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    graph = gg.trace(stirred(model).double(), torch.randn(3, 3, 6, 6, dtype=torch.float64))
    child = grown(graph, "deepen(1, kind=copy)")
    for path, parameter in child.module.named_parameters():
        if path.startswith("1_deepen"):
            assert bool(parameter.any()) is not path.startswith(f"1_deepen.{closed}."), path
    assert_exact(graph, child)
    if name != "convnext":  # its layer scale of 1e-6 makes gradients small, not zero
        assert_alive(graph, child)
    assert f"deepen({2}, kind=copy)" in {str(m) for m in graph.mutations("deepen")}


def test_stochastic_depth_and_dropout_in_a_closed_branch() -> None:
    """With the same draws for what was there before, the outputs agree in train mode too."""
    block = convnext.CNBlock(8, 1.0, 0.5)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), block, nn.Conv2d(8, 2, 1)).double().train()
    graph = gg.trace(model, torch.randn(6, 3, 6, 6, dtype=torch.float64))
    child = grown(graph, "deepen(1, kind=copy)")
    x = torch.randn(6, 3, 6, 6, dtype=torch.float64)
    outputs = []
    for side in (graph, child):
        torch.manual_seed(5)
        outputs.append(side.module(x))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], copy.deepcopy(graph.module).eval()(x))


class Attend(nn.Module):
    """Attention with an additive bias on the scores, without biases in its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(n, l, 8) and (1, 2, l, l) -> (n, l, 8)."""
        q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) + bias).softmax(-1)
        result: torch.Tensor = self.o((weights @ v).transpose(1, 2).flatten(-2))
        return result


class Sandwich(nn.Module):
    """RMS norms in front of each branch and behind it, a position bias that all blocks share."""

    def __init__(self, post: bool) -> None:
        super().__init__()
        self.post, self.attend = post, Attend()
        self.norms = nn.ModuleList(nn.RMSNorm(8, eps=1e-5) for _ in range(4))
        self.up, self.down = nn.Linear(8, 12, bias=False), nn.Linear(12, 8, bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(n, l, 8) -> the same."""
        x = x + self.norms[1](self.attend(self.norms[0](x), bias))
        x = x + self.norms[3](self.down(torch.relu(self.up(self.norms[2](x)))))
        result: torch.Tensor = self.norms[0](x) if self.post else x
        return result


class SharedBias(nn.Module):
    """Two such blocks on embedded features."""

    def __init__(self, post: bool) -> None:
        super().__init__()
        self.first, self.bias = nn.Linear(3, 8), nn.Parameter(torch.randn(1, 2, 5, 5))
        self.blocks, self.last = nn.ModuleList(Sandwich(post) for _ in range(2)), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 5, 3) -> (n, 5, 2)."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x, self.bias)
        result: torch.Tensor = self.last(x)
        return result


@pytest.mark.parametrize("post", [False, True])
def test_rms_norms_around_every_branch_and_a_shared_position_bias(post: bool) -> None:
    """In pre-norm form the last norms are closed; in post-norm form a gate is; the bias stays the one that it was."""
    graph = gg.trace(SharedBias(post).double(), torch.randn(2, 5, 3).double())
    child = gg.apply(graph, "deepen(blocks.0, kind=copy)")
    verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved is True, str(verdict)
    names = {name for name, _ in child.module.named_parameters()}
    assert ("blocks.0_deepen_gate.gate.gate" in names) is post
    assert not {name for name in names if name.endswith("bias") and "_deepen" in name}
    assert gg.clean(child).text() == gg.clean(graph).text()


class _Logarithmic(nn.Module):
    """Finite on what is never negative, as a ReLU in front leaves it; what it puts out may be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x - 20 * self.linear(torch.log1p(x))
        return result


@pytest.mark.parametrize("clamped", [False, True])
def test_a_block_that_is_finite_on_what_its_place_gives_it_alone_is_not_copied(clamped: bool) -> None:
    def run(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.block(m.stem(x).relu())
        result: torch.Tensor = m.head(x.relu() if clamped else x)
        return result

    model = Forward(run, stem=nn.Linear(3, 6), block=_Logarithmic(), head=nn.Linear(6, 2)).double()
    graph = gg.trace(model, torch.randn(16, 3).double())
    again = model.block(model.block(model.stem(graph.inputs.sample(1)[0][0]).relu()))
    assert not bool(again.isfinite().all()), "a copy of it would answer NaN"
    assert "deepen(block, kind=copy)" not in map(str, graph.mutations("deepen"))
    with pytest.raises(gg.Declined, match="`log1p` may overflow on what `block` puts out"):
        gg.apply(graph, "deepen(block, kind=copy)")
