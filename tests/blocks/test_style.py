"""New parts are like those that stand nearest, and of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.blocks.style import Style


def style(site: str, *layers: nn.Module, shape: tuple[int, ...] = (2, 4, 6, 6)) -> Style:
    """At a site of a sequence of layers, whose names are their numbers."""
    graph = gg.trace(nn.Sequential(*layers), torch.randn(shape))
    assert graph.analysis.facts
    return Style(graph.module, graph.sites.find(site))


CONV = (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), nn.LeakyReLU(0.3), nn.Conv2d(4, 4, 3), nn.SiLU())


@pytest.mark.parametrize(
    ("site", "expected"), [("0", nn.LeakyReLU), ("2", nn.LeakyReLU), ("3", nn.SiLU), ("4", nn.SiLU)]
)
def test_the_nearest_activation(site: str, expected: type[nn.Module]) -> None:
    """In the order of the graph; at equal distance the one behind."""
    made = style(site, *CONV).activation(nn.Tanh)
    assert type(made) is expected


def test_its_options_are_kept_but_not_in_place() -> None:
    original = nn.LeakyReLU(0.3, inplace=True)
    made = style("0", nn.Conv2d(4, 4, 3), original).activation(nn.Tanh)
    assert isinstance(made, nn.LeakyReLU)
    assert made.negative_slope == 0.3
    assert not made.inplace
    assert original.inplace, "the model's own is left alone"


@pytest.mark.parametrize(
    "odd", [nn.Identity(), nn.PReLU(), nn.Sigmoid(), nn.Softmax(1), nn.GLU(1), nn.Threshold(0.1, 20.0)]
)
def test_only_plain_activations_are_taken_over(odd: nn.Module) -> None:
    """Not those with weights, nor those that gate."""
    assert type(style("0", nn.Conv2d(4, 4, 3), odd).activation(nn.Tanh)) is nn.Tanh


def described(norm: nn.Module) -> str:
    return f"{type(norm).__name__} {sorted((k, v) for k, v in norm.__dict__.items() if k in ('eps', 'momentum', 'num_groups', 'num_features', 'num_channels', 'normalized_shape'))}"  # noqa: E501


NORMS: list[tuple[nn.Module, int, int, nn.Module]] = [  # the model's, channels and dims wanted, what is made
    (nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), 6, 2, nn.BatchNorm2d(6, eps=1e-3, momentum=0.3)),
    (nn.BatchNorm2d(4, momentum=None), 6, 2, nn.BatchNorm2d(6, momentum=None)),
    (nn.BatchNorm2d(4, affine=False, track_running_stats=False), 6, 2, nn.BatchNorm2d(6)),
    (nn.SyncBatchNorm(4), 6, 2, nn.BatchNorm2d(6)),
    (nn.GroupNorm(2, 4, eps=1e-3), 6, 2, nn.GroupNorm(2, 6, eps=1e-3)),
    (nn.GroupNorm(4, 4), 6, 2, nn.Identity()),
    (nn.InstanceNorm2d(4), 6, 2, nn.Identity()),
    (nn.LocalResponseNorm(2), 6, 2, nn.Identity()),
]  # fmt: skip


@pytest.mark.parametrize(("norm", "channels", "dims", "expected"), NORMS)
def test_a_norm_of_maps(norm: nn.Module, channels: int, dims: int, expected: nn.Module) -> None:
    made = style("0", nn.Conv2d(4, 4, 3), norm, nn.ReLU()).norm(channels, dims)
    assert described(made) == described(expected)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (lambda: nn.LayerNorm(8, eps=1e-3), nn.LayerNorm(6, eps=1e-3)),
        (lambda: nn.RMSNorm(8, eps=1e-3), nn.RMSNorm(6, eps=1e-3)),
        (lambda: nn.BatchNorm1d(8, eps=1e-3), nn.BatchNorm1d(6, eps=1e-3)),
    ],
)
def test_a_norm_of_features(norm: Callable[[], nn.Module], expected: nn.Module) -> None:
    made = style("0", nn.Linear(3, 8), norm(), nn.ReLU(), shape=(5, 3)).norm(6, 0)
    assert described(made) == described(expected)


def test_norms_of_maps_and_of_features_are_not_mixed() -> None:
    layers = (
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 8),
        nn.LayerNorm(8),
    )
    assert type(style("4", *layers).norm(8, 0)) is nn.LayerNorm
    assert type(style("1", *layers).norm(8, 2)) is nn.BatchNorm2d
    assert type(style("4", *layers[:-1]).norm(8, 0)) is nn.Identity


def test_no_batch_norm_where_a_sample_has_one_number() -> None:
    """nn.BatchNorm refuses a single sample of one position in train mode, and the model does not."""
    layers = (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert type(style("3", *layers).norm(6, 2)) is nn.Identity
    grouped = (nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert type(style("3", *grouped).norm(6, 2)) is nn.GroupNorm
    assert type(style("3", *grouped).norm(2, 2)) is nn.Identity
    sequence = (nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 8))
    assert type(style("4", *sequence, shape=(2, 4, 6)).norm(8, 0)) is nn.Identity


def test_no_norm_and_no_activation() -> None:
    made = style("0", nn.Conv2d(4, 4, 3), nn.Flatten())
    assert type(made.norm(4, 2)) is nn.Identity
    assert type(made.activation(nn.ReLU)) is nn.ReLU
