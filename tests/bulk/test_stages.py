"""Which modules make a stage, in which order, and where its copies go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.bulk.stages import Member, Modules, Stage, numbered
from graphgrow.errors import Declined
from graphgrow.models import densenet, mobilenet, resnet, unet, vit
from tests.bulk.families import PlainResNet

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def stages(model: nn.Module, example: torch.Tensor = IMAGES) -> list[Stage]:
    return Modules(gg.trace(model, example)).stages()


def marks(found: list[Stage]) -> dict[str, str]:
    """By name of a stage, a letter for each member: residual, gated, or - for what cannot be copied."""
    return {
        stage.name: "".join("-" if m.reason else "r" if m.residual else "g" for m in stage.members) for stage in found
    }


class Sum(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class PostNorm(nn.Module):
    """norm(x + f(x)), which no zero can turn into the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.map(x))


class Branches(nn.Module):
    """Two parts whose names end in numbers, beside each other and not one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.branch_1 = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.branch_2 = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch_1(x) * self.branch_2(x)


class Parts(nn.Module):
    """A block whose parts, of several classes, stand in a list."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


class Half(Sum):
    """x + f(x) / 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x) / 2


def pair() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        # the first block of a stage of lower resolution has no input of the shape of its result
        (
            lambda: resnet.resnet(width=4),
            {"stages.0.0 to stages.0.1": "rr", "stages.1.0 to stages.1.1": "-r", "stages.2.0 to stages.2.1": "-r"},
        ),
        (lambda: resnet.resnet(width=4, depth=1), {"stages.0.0": "r", "stages.1.0": "-", "stages.2.0": "-"}),
        (lambda: PlainResNet((4, 8), (3, 1)), {"layer1.0 to layer1.2": "rrr", "layer2.0": "-"}),
        # one sequence, three shapes
        (
            lambda: mobilenet.mobilenet(width=8),
            {"blocks.0": "r", "blocks.1 to blocks.2": "-r", "blocks.3 to blocks.4": "-r"},
        ),
        (lambda: vit.vit(width=16, heads=2, depth=2), {"blocks.0 to blocks.1": "rr"}),
        (lambda: densenet.densenet(width=2, depth=1), {f"layers.{i}": "-" for i in range(5)}),
        (
            lambda: unet.unet(width=2),
            {"down.0": "-", "down.1": "-", "down.2": "-", "merge.0": "-", "merge.1": "-"},
        ),
    ],
)
def test_the_stages_of_reference_models(build: Callable[[], nn.Module], expected: dict[str, str]) -> None:
    assert marks(stages(build())) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(Sum(nn.Linear(4, 4)), Sum(nn.Linear(4, 4))), {"0 to 1": "rr"}),
        # the innermost that are residual; behind a ReLU a branch of zeros would never learn
        (nn.Sequential(nn.Sequential(Sum(nn.Linear(4, 4)), Sum(nn.Linear(4, 4)))), {"0.0 to 0.1": "rr"}),
        (nn.Sequential(nn.Sequential(Sum(pair()), Sum(pair()))), {"0.0 to 0.1": "gg"}),
        # blocks of one class, made of parts of several classes; of one class, the parts are the blocks
        (
            nn.Sequential(*(Parts(Sum(nn.Linear(4, 4)), Half(nn.Linear(4, 4))) for _ in range(2))),
            {"0 to 1": "rr"},
        ),
        (
            nn.Sequential(*(Parts(Sum(nn.Linear(4, 4)), Sum(nn.Linear(4, 4))) for _ in range(2))),
            {"0.parts.0 to 0.parts.1": "rr", "1.parts.0 to 1.parts.1": "rr"},
        ),
        (nn.Sequential(PostNorm(4), PostNorm(4)), {"0 to 1": "gg"}),
        (nn.Sequential(pair(), pair()), {"0 to 1": "gg"}),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), {}),
        (Branches(), {}),
    ],
)
def test_the_stages_of_small_models(model: nn.Module, expected: dict[str, str]) -> None:
    assert marks(stages(model, torch.randn(3, 4))) == expected


def test_copies_are_members_in_the_order_in_which_they_run() -> None:
    graph = gg.trace(PlainResNet((4, 8)), torch.randn(2, 3, 8, 8))
    grown = gg.apply(graph, ["deepen(layer1.0, kind=copy)", "deepen(layer1.0, kind=copy)"])
    paths = [member.path for member in Modules(grown).stages()[0].members]
    assert paths == ["layer1.0", "layer1.0_deepen2", "layer1.0_deepen", "layer1.1"]
    assert [len(stage) for stage in Modules(grown).family("layer1", "")] == [4]


def test_a_refused_member_says_why() -> None:
    member = stages(resnet.resnet(width=4))[1].members[0]
    assert member.reason == "nothing that flows into `stages.1.0` has the shape of what flows out"


def stage(letters: str) -> Stage:
    reasons = {"-": "too narrow"}
    return Stage(tuple(Member(f"b.{i}", (1,), mark == "r", reasons.get(mark)) for i, mark in enumerate(letters)))


@pytest.mark.parametrize(
    ("letters", "copies", "expected"),
    [
        # Wu et al., section 4.1: 32 blocks in 8 groups of 4, a copy of the last block behind each group
        ("r" * 32, 8, [3, 7, 11, 15, 19, 23, 27, 31]),
        ("rrrr", 0, []),
        ("rrrr", 1, [3]),
        ("rrrr", 4, [0, 1, 2, 3]),
        ("rrr", 6, [0, 0, 1, 1, 2, 2]),
        ("-rr", 4, [1, 1, 2, 2]),
        ("-rg", 2, [1, 1]),  # what needs no gate comes first
        ("-gg", 2, [1, 2]),
    ],
)
def test_copies_are_spread_evenly(letters: str, copies: int, expected: list[int]) -> None:
    assert stage(letters).spread(copies) == [f"b.{i}" for i in expected]


def test_nothing_to_copy_is_declined_with_the_reason() -> None:
    with pytest.raises(Declined, match=r"no module of `b\.0 to b\.1` can be copied: too narrow"):
        stage("--").spread(1)
    assert stage("--").spread(0) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("layer1.0", ("layer1", "")),
        ("encoder.encoder_layer_11", ("encoder", "encoder_layer_")),
        ("layers.3_deepen2_deepen", ("layers", "")),
        ("block2-0", ("", "block2-")),
        ("attention", None),
        ("0.mlp", None),
    ],
)
def test_numbered_paths(path: str, expected: tuple[str, str] | None) -> None:
    assert numbered(path) == expected
