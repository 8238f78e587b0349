"""A small model becomes a larger one of the same class, which then computes the same and trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.bulk.grow_to import grow_to
from graphgrow.models import gpt, mixer, mobilenet, resnet, vit
from tests.bulk.families import (
    GPT2,
    FunctionalRMSNorm,
    Llama,
    PlainResNet,
    PostNorm,
    SpelledRMSNorm,
    convnext,
    swin,
    vision_transformer,
)

IMAGES = torch.linspace(-2, 2, 2 * 3 * 16 * 16, dtype=torch.float64).reshape(2, 3, 16, 16).sin()
LARGE_IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32, dtype=torch.float64).reshape(2, 3, 32, 32).sin()
TOKENS = torch.arange(2 * 7).reshape(2, 7) % 19

rms_norm = partial(nn.RMSNorm, eps=1e-5)


@dataclass(frozen=True)
class Pair:
    """How the small model and its larger sibling are built, and the input of both."""

    label: str
    small: Callable[[], nn.Module]
    large: Callable[[], nn.Module]
    example: torch.Tensor

    def __str__(self) -> str:
        return self.label


PAIRS = [
    Pair("resnet", lambda: resnet.resnet(width=4), lambda: resnet.resnet(width=6, depth=3), LARGE_IMAGES),
    Pair("torchvision blocks", lambda: PlainResNet((4, 6)), lambda: PlainResNet((6, 11), (3, 5)), IMAGES),
    Pair("mobilenet", lambda: mobilenet.mobilenet(width=4), lambda: mobilenet.mobilenet(width=8), LARGE_IMAGES),
    Pair("vit", lambda: vit.vit(width=16, heads=2, depth=2), lambda: vit.vit(width=24, heads=3, depth=5), LARGE_IMAGES),
    Pair("torchvision vit", lambda: vision_transformer(2, 1), lambda: vision_transformer(3, 2), IMAGES),
    Pair("gpt", lambda: gpt.gpt(width=16, heads=2), lambda: gpt.gpt(width=24, heads=3, depth=3), TOKENS),
    Pair(
        "tied gpt",
        lambda: gpt.GPT(dim=16, heads=2, depth=1, hidden=32, tied=True),
        lambda: gpt.GPT(dim=24, heads=3, depth=2, hidden=48, tied=True),
        TOKENS,
    ),
    Pair("llama", lambda: Llama(2, 1, False, rms_norm), lambda: Llama(3, 3, False, rms_norm), TOKENS),
    Pair(
        "llama with functional norms",
        lambda: Llama(2, 1, False, FunctionalRMSNorm),
        lambda: Llama(3, 2, False, FunctionalRMSNorm),
        TOKENS,
    ),
    Pair("convnext, twice as wide", lambda: convnext(4, 8, 1), lambda: convnext(8, 16, 2), LARGE_IMAGES),
    Pair("swin, deeper", lambda: swin((1, 2)), lambda: swin((2, 4)), LARGE_IMAGES),
    Pair("swin, twice as wide", lambda: swin((1, 2)), lambda: swin((1, 2), 16), LARGE_IMAGES),
    Pair("gpt-2's maps", lambda: GPT2(8, 1), lambda: GPT2(12, 3), TOKENS),
    Pair("tied and post-norm, twice as wide", lambda: PostNorm(6), lambda: PostNorm(12), TOKENS),
    Pair("tied llama, deeper", lambda: Llama(2, 1, True, rms_norm), lambda: Llama(2, 3, True, rms_norm), TOKENS),
]


def trained(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model in float64 with numbers as training leaves them: nothing is zero, and every norm does something."""
    model = model.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand(buffer.shape, generator=generator))
    return model


def output(model: nn.Module, example: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = copy.deepcopy(model).eval()(example)
    return result


def assert_same_function(small: nn.Module, large: nn.Module, example: torch.Tensor) -> None:
    wanted, found = output(small, example), output(large, example)
    assert wanted.std() > 1e-3
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def assert_trains(model: nn.Module, example: torch.Tensor) -> None:
    """One step changes the output, and every parameter has a gradient that is finite."""
    before = output(model, example)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    (model.train()(example) ** 2).mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimizer.step()
    assert not torch.equal(before, output(model, example))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_larger_model_computes_what_the_small_one_does(pair: Pair) -> None:
    small, large = trained(pair.small()), pair.large().double()
    names = {name: id(tensor) for name, tensor in large.state_dict(keep_vars=True).items()}
    grown = grow_to(gg.trace(small, pair.example), large)
    assert grown.model is large
    assert {name: id(tensor) for name, tensor in large.state_dict(keep_vars=True).items()} == names  # in place
    assert_same_function(small, large, pair.example)
    assert_same_function(small, grown.graph.module, pair.example)
    assert grown.max_error < 1e-10
    assert [str(mutation) for mutation in grown.mutations] == [entry.mutation for entry in grown.graph.ledger]
    assert_trains(large, pair.example)
    assert_same_function(small, grown.graph.module, pair.example)  # which shares no tensor with it


def test_where_whole_copies_alone_are_exact_their_number_is_said() -> None:
    only = "only whole copies are exact here: 12 units or another multiple of 6"
    with pytest.raises(gg.Unsupported, match=f"layer norm over the axis (.|\n)*{only}"):
        grow_to(gg.trace(trained(PostNorm(6)), TOKENS), PostNorm(9).double())


def test_a_model_that_rounds_on_its_way_is_compared_within_its_own_rounding() -> None:
    """Spelled out norms go through float32; Dynamo's graph has layers there, whose eps follows under its own name."""
    small, large = Llama(2, 1, False, SpelledRMSNorm).eval(), Llama(3, 2, False, SpelledRMSNorm).eval()
    graph = gg.trace(small, TOKENS, way="dynamo")
    before = large.get_submodule("norm").get_parameter("weight").clone()
    grown = grow_to(graph, large)
    assert set(grown.settings) == {f"{path}.variance_epsilon" for path in RMS_NORMS}
    assert list(grown.settings.values()) == pytest.approx([1e-5 * 2 / 3] * 5)
    assert not torch.equal(large.get_submodule("norm").get_parameter("weight"), before)
    assert (output(large, TOKENS) - output(small, TOKENS)).abs().max() < 1e-5
    assert 1e-10 < grown.max_error < 1e-6


RMS_NORMS = ("layers.0.norm1", "layers.0.norm2", "layers.1.norm1", "layers.1.norm2", "norm")


def test_the_mutations_are_ordinary_and_verified() -> None:
    small = trained(gpt.gpt(width=8, heads=1, depth=1))
    graph = gg.trace(small, TOKENS)
    grown = grow_to(graph, gpt.gpt(width=8, heads=1, depth=2).double())
    assert [str(mutation) for mutation in grown.mutations] == ["deepen(blocks.0, kind=copy)"]
    assert gg.verify(graph, grown.graph).preserved is True


def test_a_target_without_data_gets_it() -> None:
    small = trained(PlainResNet((4, 6), (1, 2)))
    with torch.device("meta"):
        large = PlainResNet((6, 8), (2, 3)).double()
    grow_to(gg.trace(small, IMAGES), large)
    assert_same_function(small, large, IMAGES)
    assert_trains(large, IMAGES)


def test_heads_and_their_width_are_told_apart() -> None:
    small = trained(vit.vit(width=16, heads=2, depth=1))
    grown = grow_to(gg.trace(small, LARGE_IMAGES), vit.ViT(dim=40, heads=5, depth=1, hidden=40).double())
    texts = [str(mutation) for mutation in grown.mutations]
    assert texts == [
        "widen(patch_embed, extra=24)",
        "widen(blocks.0.attention:heads, extra=3)",
        "widen(blocks.0.mlp.0, extra=8)",
    ]


def test_wider_heads_are_refused_where_the_target_scales_by_their_width() -> None:
    small, large = trained(vit.vit(width=16, heads=2, depth=1)), trained(vit.vit(width=32, heads=2, depth=1), seed=4)
    before = copy.deepcopy(large.state_dict())
    with pytest.raises(
        gg.NotPreserved, match=r"differs from the graph by [\d.e-]+, (.|\n)*more heads of the same width"
    ):
        grow_to(gg.trace(small, LARGE_IMAGES), large)
    assert all(torch.equal(tensor, before[name]) for name, tensor in large.state_dict().items())


class Scaled(nn.Module):
    """A model whose own code divides by its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last, self.width = nn.Linear(4, width), nn.Linear(width, 2), width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x))) / self.width


def test_code_that_depends_on_a_size_is_found() -> None:
    example = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(gg.NotPreserved, match="its own code depends on a size, or on a constant"):
        grow_to(gg.trace(trained(Scaled(4)), example), Scaled(6).double())


def test_a_norm_that_is_written_out_is_no_layer_for_torch_fx() -> None:
    """What makes up for the new units then stands in the graph alone; by Dynamo it is one (see above)."""
    small, large = (trained(Llama(heads, 1, False, SpelledRMSNorm), seed=heads) for heads in (2, 3))
    with pytest.raises(gg.NotPreserved, match=r'the statistic at `mean.*` is rescaled .* way="dynamo"'):
        grow_to(gg.trace(small, TOKENS, way="fx"), large)


def test_a_head_of_zeros_hides_nothing() -> None:
    example = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small = Scaled(4).double()
    nn.init.zeros_(small.last.weight)
    nn.init.zeros_(small.last.bias)
    with pytest.raises(gg.NotPreserved):
        grow_to(gg.trace(small, example), Scaled(6).double())


@pytest.mark.parametrize(
    ("small", "large", "why"),
    [
        (
            lambda: vit.vit(width=16, heads=2, depth=1),
            lambda: vit.vit(width=16, heads=2, depth=1, classes=12),
            r"`head.weight` has 12 units in the target and 10 here, frozen: a model output",
        ),
        (
            lambda: vit.vit(width=16, heads=4, depth=1),
            lambda: vit.vit(width=32, heads=2, depth=1),
            r"has 2 heads in the target and 4 here; nothing can shrink",
        ),
        (
            lambda: vit.vit(width=16, heads=1, depth=1),
            lambda: vit.vit(width=16, heads=2, depth=1),
            r"has 2 heads in the target and 1 here, frozen",
        ),
        (
            lambda: vit.vit(width=16, heads=2, depth=1),
            lambda: vit.vit(width=8, heads=2, depth=1),
            r"`patch_embed.weight` has 8 units in the target and 16 here; nothing can shrink",
        ),
        (
            lambda: vit.vit(width=16, heads=2, depth=2),
            lambda: vit.vit(width=16, heads=2, depth=1),
            r"the target has fewer blocks `blocks.N` than the graph; nothing can shrink",
        ),
        (
            lambda: resnet.resnet(width=4, depth=1).float(),
            lambda: resnet.resnet(width=6, depth=1).float(),
            r"the target's parameters are torch.float32 and the graph's torch.float64; convert one of them first",
        ),
        (
            lambda: resnet.resnet(width=4, depth=1),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10).double()),
            r"`1.weight` \(10, 3072\) of the target is not in the graph",
        ),
    ],
)
def test_refusals_say_what_does_not_fit(
    small: Callable[[], nn.Module], large: Callable[[], nn.Module], why: str
) -> None:
    target = large()
    target = target if "float32" in why else target.double()
    with pytest.raises(gg.Unsupported, match=why):
        grow_to(gg.trace(trained(small()), LARGE_IMAGES), target)


def test_a_growth_that_is_declined_names_the_targets_parameter() -> None:
    small, large = mixer.mixer(width=8, depth=1).double(), mixer.mixer(width=12, depth=1).double()
    with pytest.raises(
        gg.Unsupported, match=r"`patch_embed.weight` of the target asks for .* layer norm over the axis"
    ):
        grow_to(gg.trace(small, LARGE_IMAGES), large)


def test_the_optimizer_goes_on_with_the_targets_parameters() -> None:
    small = trained(gpt.GPT(dim=16, heads=2, depth=1, hidden=32, tied=True))
    large = gpt.GPT(dim=24, heads=3, depth=2, hidden=48, tied=True).double()
    optimizer = torch.optim.AdamW(small.parameters(), lr=1e-3)
    small(TOKENS).square().mean().backward()
    optimizer.step()
    old = optimizer.state[small.get_parameter("blocks.0.mlp.0.weight")]["exp_avg"].clone()
    before = output(small, TOKENS)
    grow_to(gg.trace(small, TOKENS), large, optimizer=optimizer)
    trained_now = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, trained_now)) == sorted(map(id, large.parameters()))
    assert {id(p) for p in optimizer.state} <= set(map(id, trained_now))
    new = optimizer.state[large.get_parameter("blocks.0.mlp.0.weight")]["exp_avg"]
    assert torch.equal(new[:32, :16], old)
    assert torch.allclose(output(large, TOKENS), before, rtol=1e-10, atol=1e-12)
    assert_trains(large, TOKENS)
    large.zero_grad()
    large(TOKENS).square().mean().backward()
    optimizer.step()
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in large.parameters())


def test_a_failure_leaves_the_optimizer_as_it_was() -> None:
    small = trained(vit.vit(width=16, heads=2, depth=1))
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    before = list(map(id, optimizer.param_groups[0]["params"]))
    with pytest.raises(gg.NotPreserved):
        grow_to(gg.trace(small, LARGE_IMAGES), vit.vit(width=32, heads=2, depth=1).double(), optimizer=optimizer)
    assert list(map(id, optimizer.param_groups[0]["params"])) == before


def test_a_float32_model_is_compared_in_float64() -> None:
    small = trained(gpt.gpt(width=16, heads=2, depth=1)).float()
    large = gpt.gpt(width=24, heads=3, depth=2)
    grown = grow_to(gg.trace(small, TOKENS), large)
    assert grown.max_error < 1e-10
    assert next(large.parameters()).dtype == torch.float32
    assert torch.allclose(output(large, TOKENS), output(small, TOKENS), rtol=1e-5, atol=1e-5)


def test_it_prints_what_was_done() -> None:
    small, large = trained(gpt.gpt(width=16, heads=2, depth=1)), gpt.gpt(width=24, heads=3, depth=1).double()
    lines = str(grow_to(gg.trace(small, TOKENS), large)).splitlines()
    count = sum(parameter.numel() for parameter in large.parameters())
    assert lines[0].startswith(f"grown to GPT with {count:,} parameters by 3 mutations; largest error ")
    assert "  widen(blocks.0.attention.qkv:heads, extra=1)" in lines
    # eps * 16 / 24, over each of which the stream grew
    assert lines[-1] == ("set, since no state_dict holds it: eps = 6.66667e-06 of blocks.0.norm1, blocks.0.norm2, norm")


def test_what_is_no_pair_is_refused() -> None:
    graph = gg.trace(trained(Scaled(4)), torch.ones(3, 4, dtype=torch.float64))
    with pytest.raises(gg.Unsupported, match="the target ReLU has no parameters"):
        grow_to(graph, nn.ReLU())
    with torch.device("meta"):
        empty = Scaled(4).double()
    with pytest.raises(gg.Unsupported, match="the graph is on the meta device"):
        grow_to(gg.trace(empty, torch.ones(3, 4, dtype=torch.float64, device="meta")), Scaled(6).double())


def test_a_target_that_takes_other_inputs_is_called_that() -> None:
    """It was told as if the small model failed on its own example."""
    small, large = (nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, 2)) for width in (3, 5))
    with pytest.raises(gg.CaptureError, match="the target does not take what the graph takes, or cannot be captured: "):
        grow_to(gg.trace(small, torch.randn(2, 3)), large)


def test_weights_that_are_no_numbers_are_refused() -> None:
    example = torch.ones(3, 4, dtype=torch.float64)
    for number in (float("nan"), float("inf")):
        small = Plain(4).double()
        nn.init.constant_(small.last.bias, number)
        with pytest.raises(gg.NotPreserved, match="the outputs are not finite, so that nothing can be compared"):
            grow_to(gg.trace(small, example), Plain(6).double())


class Plain(Scaled):
    """The same without the division."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def test_a_growth_that_goes_wrong_itself_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gg.trace(trained(Plain(4)), torch.ones(3, 4, dtype=torch.float64))

    def wrong(network: gg.Graph, mutations: Any, seed: int, optimizer: None) -> gg.Graph:
        grown = gg.apply(network, mutations, seed, share=False)
        with torch.no_grad():
            grown.module.get_parameter("last.bias").add_(1e-3)
        return grown

    monkeypatch.setattr("graphgrow.bulk.grow_to.apply", wrong)
    with pytest.raises(gg.NotPreserved, match=r"the growth itself changes the outputs by 0.001, where they reach"):
        grow_to(graph, Plain(6).double())

    def declined(*args: Any, **options: Any) -> gg.Graph:
        raise gg.Declined("not there")

    monkeypatch.setattr("graphgrow.bulk.grow_to.apply", declined)
    with pytest.raises(gg.Unsupported, match="this graph cannot grow into the target: not there"):
        grow_to(graph, Plain(6).double())
