"""Which block of the small model each block of the large one descends from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.bulk.lineage import Lineage, renamed
from graphgrow.graph import Graph
from graphgrow.models import densenet, gpt, mlp
from tests.bulk.families import PlainResNet

IMAGES = torch.zeros(2, 3, 16, 16)
LARGE_IMAGES = torch.zeros(2, 3, 32, 32)
TOKENS = torch.zeros(2, 5, dtype=torch.int64)


def both(small: nn.Module, large: nn.Module, example: torch.Tensor) -> tuple[Graph, Graph, Lineage]:
    graph, target = gg.trace(small, example), gg.trace(large, example)
    return graph, target, Lineage.of(graph, target, large.state_dict())


class Steps(nn.Module):
    """One sequence of blocks of several widths, with numbers that run on, as mobile networks have."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = zip((3, *widths), widths, strict=False)
        self.features = nn.ModuleList([Step(a, b) for a, b in pairs])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.features:
            x = step(x)
        return x.mean((2, 3))


class Step(nn.Module):
    """A convolution, and a residual one where the width stays."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv, self.same = nn.Conv2d(a, b, 1), a == b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


class PostNorm(nn.Module):
    """Blocks whose copies need a gate."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


def test_equal_depths_have_no_lineage() -> None:
    *_, lineage = both(gpt.gpt(width=8, heads=1), gpt.gpt(width=16, heads=2), TOKENS)
    assert lineage == Lineage((), (), {})


def test_each_stage_for_itself() -> None:
    graph, target, lineage = both(PlainResNet((4, 4)), PlainResNet((4, 4), (4, 3)), IMAGES)
    assert lineage.sites == ("layer1.0", "layer1.1", "layer2.1")
    assert lineage.origins == {
        "layer1.0": "layer1.0",
        "layer1.1": "layer1.0",
        "layer1.2": "layer1.1",
        "layer1.3": "layer1.1",
        "layer2.0": "layer2.0",
        "layer2.1": "layer2.1",
        "layer2.2": "layer2.1",
    }
    grown = gg.apply(graph, [f"deepen({site}, kind=copy)" for site in lineage.sites])
    paths = lineage.paths(grown, target)
    assert paths["layer1.1"] == "layer1.0_deepen"
    assert paths["layer2.2"] == "layer2.1_deepen"
    assert paths["layer2.0"] == "layer2.0"


def test_numbers_that_run_on_over_several_shapes() -> None:
    *_, lineage = both(Steps(4, 4, 8, 8, 2), Steps(4, 4, 4, 8, 8, 8, 2), IMAGES)
    assert lineage.sites == ("features.1", "features.3")
    assert [lineage.origins[f"features.{i}"] for i in range(7)] == [f"features.{i}" for i in (0, 1, 1, 2, 3, 3, 4)]


def test_copies_that_the_graph_has_already_count() -> None:
    small, large = gpt.gpt(width=8, heads=1, depth=1), gpt.gpt(width=8, heads=1, depth=3)
    graph = gg.apply(gg.trace(small, TOKENS), "deepen(blocks.0, kind=copy)")
    lineage = Lineage.of(graph, gg.trace(large, TOKENS), large.state_dict())
    assert lineage.sites == ("blocks.0_deepen",)
    assert lineage.origins == {"blocks.0": "blocks.0", "blocks.1": "blocks.0_deepen", "blocks.2": "blocks.0_deepen"}


@pytest.mark.parametrize(
    ("small", "large", "example", "why"),
    [
        (lambda: Steps(4, 8, 8), lambda: Steps(4, 4, 8, 8, 6), IMAGES, "come in 3 runs of one shape .* in 2 here"),
        (lambda: Steps(4, 4, 8, 8), lambda: Steps(4, 8, 8, 8, 8), IMAGES, "has 2 blocks and the target 1; nothing can"),
        (lambda: densenet.densenet(width=2, depth=1), lambda: densenet.densenet(width=2), LARGE_IMAGES, "runs of one"),
        (
            lambda: mlp.MLP(hidden=(4,), dropout=0.1),
            lambda: mlp.MLP(hidden=(4, 4), dropout=0.1),
            LARGE_IMAGES,
            "would drop twice",
        ),
        (
            lambda: gpt.gpt(depth=2),
            lambda: gpt.gpt(depth=1),
            TOKENS,
            "fewer blocks `blocks.N` .* what `blocks.1` computes would be lost, a DecoderBlock here",
        ),
        (
            lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))),
            lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))),
            torch.zeros(3, 4),
            "fewer blocks `0.N` .* what `0.1` computes would be lost, a LayerNorm here, a Linear in the target",
        ),
        (
            lambda: PostNorm(1),
            lambda: PostNorm(2),
            torch.zeros(3, 4),
            "by `layers.0.1`, and the norm of a normed value is",
        ),
    ],
)
def test_refusals(
    small: Callable[[], nn.Module], large: Callable[[], nn.Module], example: torch.Tensor, why: str
) -> None:
    with pytest.raises(gg.Unsupported, match=why):
        both(small(), large(), example)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layers.1.mlp.weight", "layers.0_deepen.mlp.weight"),
        ("layers.1", "layers.0_deepen"),
        ("layers.11.mlp.weight", "layers.11.mlp.weight"),
        ("layers.0.blocks.1.weight", "layers.0.blocks.0.weight"),
        ("head.weight", "head.weight"),
    ],
)
def test_names_follow_the_innermost_block(name: str, expected: str) -> None:
    paths = {"layers.0": "layers.0", "layers.1": "layers.0_deepen", "layers.0.blocks.1": "layers.0.blocks.0"}
    assert renamed(name, paths) == expected
