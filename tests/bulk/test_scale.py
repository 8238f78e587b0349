"""Growth by factors: what grows, by how much, that the function is preserved, and what is said of the rest."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.bulk.scale import plan_scale, scale
from graphgrow.graph import Graph
from graphgrow.models import densenet, gpt, lstm, mixer, mlp, mobilenet, resnet, unet, vgg, vit
from graphgrow.verification.copies import double_network, refill
from tests.bulk.families import PlainResNet
from tests.preserved import assert_preserved, assert_same_bits, assert_untouched, fingerprint

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
TOKENS = torch.arange(2 * 7).reshape(2, 7) % 64


def traced(model: nn.Module) -> Graph:
    return gg.trace(model, TOKENS if isinstance(model, (gpt.GPT, lstm.LSTMClassifier)) else IMAGES)


def sizes(graph: Graph) -> dict[str, int]:
    return {group.name: group.size for group in graph.groups}


def mutation_texts(graph: Graph) -> list[str]:
    return [entry.mutation for entry in graph.ledger]


@pytest.mark.parametrize(
    "build",
    [
        lambda: resnet.resnet(width=8),
        lambda: vit.vit(width=16, heads=2, depth=2),
        lambda: gpt.gpt(width=16, heads=2, depth=1),
        lambda: gpt.GPT(dim=16, heads=2, hidden=32, depth=1, tied=True),
        lambda: mixer.mixer(width=16, depth=1),
        lambda: densenet.densenet(width=4, depth=1),
        lambda: mobilenet.mobilenet(width=8),
        lambda: unet.unet(width=4),
        lambda: vgg.vgg(width=4),
        lambda: mlp.mlp(width=12),
        lambda: lstm.lstm(width=8),
    ],
    ids=["resnet", "vit", "gpt", "tied gpt", "mixer", "densenet", "mobilenet", "unet", "vgg", "mlp", "lstm"],
)
def test_the_function_is_preserved(build: Callable[[], nn.Module]) -> None:
    small = double_network(refill(traced(build()), seed=5))
    grown = scale(small, width=1.5, depth=2.0, seed=3)
    assert grown.parameter_count > 1.5 * small.parameter_count
    args, kwargs = small.inputs.sample(seed=1)
    for mode in (False, True):
        before, after = (copy.deepcopy(graph.module).train(mode) for graph in (small, grown))
        with torch.no_grad():
            wanted, found = before(*args, **kwargs), after(*args, **kwargs)
        assert wanted.std() > 0.01
        assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def test_an_mlp_counted_by_hand() -> None:
    grown = scale(traced(mlp.mlp(width=20, depth=2)), width=1.5, multiple=1)
    assert sizes(grown) == {"layers.0": 30, "layers.3": 30, "head": 10}
    assert grown.parameter_count == (3072 + 1) * 30 + (30 + 1) * 30 + (30 + 1) * 10
    assert grown.module(IMAGES).shape == (2, 10)


def test_depth_counted_by_hand() -> None:
    small = traced(gpt.gpt(width=16, heads=2, depth=3))
    block = 2 * 2 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)
    grown = scale(small, depth=2.5)  # 7.5 blocks round to 8
    assert grown.parameter_count == small.parameter_count + 5 * block
    assert mutation_texts(grown) == [f"deepen(blocks.{i}, kind=copy)" for i in (0, 1, 1, 2, 2)]


def test_heads_grow_and_their_width_does_not() -> None:
    grown = scale(traced(vit.vit(width=16, heads=2, depth=1)), width=2)
    assert sizes(grown)["patch_embed"] == 32
    assert sizes(grown)["blocks.0.attention:heads"] == 4
    assert sizes(grown)["blocks.0.attention:head_width"] == sizes(grown)["blocks.0.attention:value_width"] == 8
    assert dict(grown.module.named_parameters())["blocks.0.attention.out_proj.weight"].shape == (32, 32)


class Grouped(nn.Module):
    """A grouped convolution, and a group norm over four groups of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.norm = nn.GroupNorm(4, 16)
        self.first = nn.Conv2d(16, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.last = nn.Conv2d(12, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.relu(self.grouped(self.first(self.norm(self.stem(images))))))
        return result


def test_of_the_factors_of_an_axis_one_grows() -> None:
    grown = scale(traced(Grouped()), width=1.5)
    shapes = {name: tuple(parameter.shape) for name, parameter in grown.module.named_parameters()}
    norm, grouped = grown.module.get_submodule("norm"), grown.module.get_submodule("grouped")
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (6, 24)
    assert grouped.groups == 3
    assert shapes["grouped.weight"] == (18, 4, 3, 3)
    assert shapes["last.weight"] == (2, 18, 1, 1)


@pytest.mark.parametrize(
    ("width", "multiple", "expected"),
    [
        (1.25, None, 32),  # 25, and up to a multiple of 8
        (1.25, 1, 25),
        (1.25, 7, 28),
        (1.125, 1, 23),  # 22.5: halves up
        (1.2, None, 24),  # 24 is one already
        (1.001, 1, 20),
        (1.001, None, 24),
    ],
)
def test_rounding(width: float, multiple: int | None, expected: int) -> None:
    plan = plan_scale(traced(mlp.mlp(width=20, depth=1)), width, multiple=multiple)
    assert [growth.after for growth in plan.growths] == [expected] * (expected > 20)
    if expected == 20:
        assert str(plan.refusals[0]) == "layers.0: 20 units times 1.001 round to 20"


def test_a_small_group_is_not_rounded_up() -> None:
    plan = plan_scale(traced(mlp.mlp(width=10, depth=1)), 1.5)
    assert [(growth.before, growth.after) for growth in plan.growths] == [(10, 15)]


def test_the_plan_foretells_and_changes_nothing() -> None:
    small = traced(vit.vit(width=16, heads=2, depth=2))
    before = fingerprint(small.module)
    plan = plan_scale(small, width=1.5, depth=1.5)
    assert_untouched(small.module, before)
    grown = scale(small, width=1.5, depth=1.5)
    assert plan.parameters == (small.parameter_count, grown.parameter_count)
    assert [str(mutation) for mutation in plan.mutations] == mutation_texts(grown)
    widths = {growth.name: growth.after for growth in plan.growths if growth.unit == "units"}
    assert widths.items() <= sizes(grown).items()
    assert [(g.before, g.after) for g in plan.growths if g.unit == "blocks"] == [(2, 3)]


def test_the_plan_prints_what_grows_and_what_does_not() -> None:
    model = mixer.mixer(width=16, depth=1)
    lines = str(plan_scale(traced(model), width=1.5, depth=2)).splitlines()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert lines[0].startswith(f"2 widths and 1 depth grow, from {count:,} to ")
    assert "  blocks.0.channel_mlp.0     32 -> 48 units" in lines
    assert "  blocks.0                    1 -> 2 blocks" in lines
    reasons = {line.split("  ")[1]: line for line in lines[lines.index("4 do not:") + 1 :]}
    assert "needs new units at mean, but they are free (at `blocks.0.norm2`)" in reasons["patch_embed"]
    assert reasons["patch_embed"].endswith("only whole copies are exact here: 32 units or another multiple of 16")
    assert "widen(" not in reasons["patch_embed"]
    assert reasons["head"].endswith("frozen: a model output (at `output`)")


def test_what_cannot_be_widened_is_split_where_the_factor_is_whole() -> None:
    small = traced(mixer.mixer(width=16, depth=1))
    grown = scale(small, width=2)
    assert "split(patch_embed)" in [entry.mutation for entry in grown.ledger]
    assert grown.groups.find("patch_embed").size == 32
    assert_preserved(small, grown)


def test_stages_that_cannot_be_deepened_are_named() -> None:
    plan = plan_scale(traced(resnet.resnet(width=8, depth=1)), depth=2)
    assert [growth.name for growth in plan.growths] == ["stages.0.0"]
    assert [refusal.site for refusal in plan.refusals] == ["stages.1.0", "stages.2.0"]
    plan = plan_scale(traced(mlp.mlp()), width=2, depth=2)
    assert [refusal.site for refusal in plan.refusals] == ["head", "depth"]


def test_the_ledger_replays_to_the_bit() -> None:
    model = vit.vit(width=16, heads=2, depth=1)
    grown = scale(gg.trace(model, IMAGES), width=1.5, depth=2, seed=7)
    assert_same_bits(gg.replay(model, IMAGES, grown.ledger).module, grown.module)
    other = scale(gg.trace(model, IMAGES), width=1.5, depth=2, seed=8)
    left, right = (graph.module.get_parameter("blocks.0.mlp.0.weight") for graph in (grown, other))
    assert not torch.equal(left, right)


def test_a_grown_model_grows_again() -> None:
    small = traced(gpt.gpt(width=8, heads=1))
    grown = scale(scale(small, depth=2), depth=2)
    assert mutation_texts(grown)[2:] == [
        f"deepen(blocks.{site}, kind=copy)" for site in ("0", "0_deepen", "1", "1_deepen")
    ]


def test_the_optimizer_goes_on() -> None:
    model = PlainResNet((4, 8), (1, 2))
    small = traced(model)
    optimizer = torch.optim.Adam(model.parameters())
    small.module(IMAGES).square().mean().backward()
    optimizer.step()
    grown = scale(small, width=1.5, depth=2, optimizer=optimizer)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in grown.module.parameters()}
    optimizer.zero_grad()
    grown.module(IMAGES).square().mean().backward()
    optimizer.step()
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in trained if p.grad is not None)


def test_it_is_verified() -> None:
    small = traced(gpt.gpt(width=8, heads=1, depth=1))
    assert gg.verify(small, scale(small, width=1.5, depth=2)).preserved is True


def test_it_scales_a_graph_without_data() -> None:
    with torch.device("meta"):
        model = mlp.mlp(width=20, depth=1)
    graph = gg.trace(model, IMAGES.to("meta"))
    assert scale(graph, width=2, multiple=1).parameter_count == 3073 * 40 + 41 * 10


@pytest.mark.parametrize("options", [{"width": 0.5}, {"depth": 0.99}, {"width": float("nan")}, {"multiple": 0}])
def test_factors_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(gg.MutationError, match=f"{next(iter(options))}=.*at least 1 is wanted"):
        scale(traced(mlp.mlp()), **options)  # type: ignore[arg-type]


def test_nothing_to_grow_is_said_with_the_reasons() -> None:
    graph = gg.trace(nn.Linear(3, 2), torch.randn(4, 3))
    with pytest.raises(gg.Unsupported, match=r"nothing grows with width=2 and depth=1(.|\n)*a model output"):
        scale(graph, width=2)
    assert scale(graph).ledger == dataclasses.replace(graph).ledger  # nothing was asked for


def test_only_what_patterns_name_grows() -> None:
    small = traced(gpt.gpt(width=16, heads=2, depth=2))
    wide = scale(small, width=2, depth=2, only="*.mlp.*")
    assert mutation_texts(wide) == [f"widen(blocks.{i}.mlp.0, extra=64)" for i in range(2)]
    assert [
        growth.name for growth in plan_scale(small, width=2, depth=2, only=["blocks.0 *", "*.1.mlp.*"]).growths
    ] == [
        "blocks.1.mlp.0",
        "blocks.0 to blocks.1",
    ]


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    small = traced(gpt.gpt(width=16, heads=2, depth=2))
    with pytest.raises(
        gg.MutationError, match=r"only='blocks.0.mpl.0' fits no channel group or stage, such as blocks.0.mlp.0"
    ):
        scale(small, width=2, only=["*.mlp.*", "blocks.0.mpl.0"])
