"""Layers with no block around them: a larger sibling has more of them, and computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.bulk.layers import extra_layers
from tests.bulk.families import Perceptron, torchvision
from tests.bulk.test_grow_to import IMAGES, assert_same_function, assert_trains, trained

ROWS = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def vgg(*entries: int | str, batch_norm: bool = False) -> nn.Module:
    """Torchvision's own layers of a VGG, and a head behind them."""
    features = torchvision.models.vgg.make_layers(list(entries), batch_norm)
    width = next(entry for entry in reversed(entries) if isinstance(entry, int))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU, between: Callable[[int], nn.Module] | None = None) -> Any:
    """Linear maps, activations and whatever else in a row."""
    layers: list[nn.Module] = []
    for a, b in zip((3, *widths), widths, strict=False):
        layers += [nn.Linear(a, b), act(), *([] if between is None else [between(b)])]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2))


def dropout(width: int) -> nn.Module:
    return nn.Dropout(0.2)


def no_dropout(width: int) -> nn.Module:
    return nn.Dropout(0.0)


def convolutions(count: int, **options: Any) -> nn.Module:
    layers = [part for _ in range(count) for part in (nn.Conv2d(4, 4, **options), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *layers, nn.AvgPool2d(2), nn.Conv2d(4, 2, 1))


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], torch.Tensor, list[str]]] = {
    "vgg11 to vgg13": (
        lambda: vgg(4, "M", 6, "M", 8, 8, "M", 9, 9),
        lambda: vgg(4, 4, "M", 6, 6, "M", 8, 8, "M", 9, 9),
        IMAGES,
        ["deepen(0.1, kind=layer)", "deepen(0.4, kind=layer)"],
    ),
    "vgg11 to vgg19, wider": (
        lambda: vgg(4, "M", 6, 6, "M"),
        lambda: vgg(6, 6, "M", 9, 9, 9, 9, "M"),
        IMAGES,
        [
            "widen(0.0, extra=2)", "widen(0.3, extra=3)", "widen(0.5, extra=3)", "deepen(0.1, kind=layer)",
            "deepen(0.6, kind=layer)", "deepen(0.6, kind=layer)",
        ],
    ),
    "a kernel of 5, ReLU6": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU6(), nn.AvgPool2d(4), nn.Conv2d(4, 2, 1)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU6(), nn.Conv2d(4, 4, 5, padding="same"), nn.ReLU6(),
                              nn.AvgPool2d(4), nn.Conv2d(4, 2, 1)),
        IMAGES,
        ["deepen(1, kind=layer)"],
    ),
    "an mlp": (lambda: mlp(6, 6), lambda: mlp(6, 6, 6, 6), ROWS, ["deepen(3, kind=layer)"] * 2),
    "an mlp, wider": (lambda: mlp(5), lambda: mlp(8, 8), ROWS, ["widen(0, extra=3)", "deepen(1, kind=layer)"]),
    "dropout that drops nothing": (partial(mlp, 6, between=no_dropout), partial(mlp, 6, 6, between=no_dropout), ROWS,
                                   ["deepen(1, kind=layer)"]),
    "as wide as its output": (lambda: mlp(2, 2), lambda: mlp(2, 2, 2), ROWS, ["deepen(3, kind=layer)"]),
    "functions": (lambda: Perceptron(5, 6), lambda: Perceptron(5, 5, 6, 6), ROWS,
                  ["deepen(:relu, kind=layer)", "deepen(:relu@2, kind=layer)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_longer_sequence_computes_the_same(name: str) -> None:
    build, larger, example, mutations = PAIRS[name]
    small, large = trained(build()), larger().double()
    graph = gg.trace(small, example)
    grown = gg.grow_to(graph, large)
    assert [str(mutation) for mutation in grown.mutations] == mutations
    assert_same_function(small, large, example)
    assert_same_function(small, grown.graph.module, example)
    assert torch.allclose(copy.deepcopy(large).train()(example[:3]), small.train()(example[:3]), rtol=1e-10, atol=1e-12)
    assert gg.verify(graph, grown.graph).preserved is True
    assert_trains(large, example)


def test_a_graph_that_has_grown_grows_on() -> None:
    small, larger, largest = trained(mlp(6, 6)), mlp(6, 6, 6).double(), mlp(9, 9, 9, 9).double()
    first = gg.grow_to(gg.trace(small, ROWS), larger).graph
    gg.grow_to(first, largest)
    assert_same_function(small, largest, ROWS)


def test_the_optimizer_goes_on_with_the_targets_parameters() -> None:
    small, large = trained(mlp(6)), mlp(6, 6).double()
    optimizer = torch.optim.Adam(small.parameters())
    small(ROWS).square().mean().backward()
    optimizer.step()
    gg.grow_to(gg.trace(small, ROWS), large, optimizer=optimizer)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, large.parameters()))


@pytest.mark.parametrize(
    ("small", "large", "example", "why"),
    [
        (partial(vgg, 4, "M", batch_norm=True), partial(vgg, 4, 4, "M", batch_norm=True), IMAGES,
         r"`0.4` is a BatchNorm2d, which divides by the deviation of each batch in train mode"),
        (partial(mlp, 6, act=nn.GELU), partial(mlp, 6, 6, act=nn.GELU), ROWS,
         r"behind `0` stands `1`, no f with f\(f\(x\)\) = f\(x\) as ReLU is"),
        (partial(mlp, 6, between=nn.LayerNorm), partial(mlp, 6, 6, between=nn.LayerNorm), ROWS,
         r"`2` is LayerNorm\(.*\), which is the identity for no weights"),
        (partial(mlp, 6, between=dropout), partial(mlp, 6, 6, between=dropout), ROWS,
         r"`3` reads `2`, where it must read the activation behind `0` \(dropout in between would drop twice\)"),
        (partial(convolutions, 0, kernel_size=3), partial(convolutions, 1, kernel_size=3, padding=1, groups=2), IMAGES,
         r"`2` is Conv2d\(.*groups=2\), which is the identity for no weights; it must have one group"),
        (partial(mlp, 6, 6, 7), partial(mlp, 6, 7), ROWS, "has fewer layers|fewer blocks `N`"),
        (partial(mlp, 6, 7), partial(mlp, 6, 8, 7), ROWS, "come in 4 runs of one shape in the target and in 3 here"),
        (partial(mlp, 6), lambda: nn.Sequential(*mlp(6, 6)[:3], nn.Tanh(), nn.Linear(6, 2)), ROWS,
         r"behind `2` stands no f with f\(f\(x\)\) = f\(x\), as ReLU is"),
    ],
)  # fmt: skip
def test_what_is_no_identity_is_refused(
    small: Callable[[], nn.Module], large: Callable[[], nn.Module], example: torch.Tensor, why: str
) -> None:
    with pytest.raises(gg.Unsupported, match=why):
        gg.grow_to(gg.trace(trained(small()), example), large().double())


def test_a_target_that_reads_what_stands_between_its_layers_is_found() -> None:
    small, large = trained(Perceptron(5, counted=True)), Perceptron(5, 5, counted=True).double()
    before = copy.deepcopy(large.state_dict())
    with pytest.raises(gg.NotPreserved, match="its own code depends on a size"):
        gg.grow_to(gg.trace(small, ROWS), large)
    assert all(torch.equal(tensor, before[name]) for name, tensor in large.state_dict().items())


def test_a_layer_that_is_called_twice_has_no_place_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(3, 3) for _ in range(depth))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in (*self.maps, *self.maps):
                x = torch.relu(layer(x))
            return x

    with pytest.raises(gg.Unsupported, match=r"`maps.0` is called several times"):
        gg.grow_to(gg.trace(Twice(1).double(), ROWS), Twice(2).double())


def test_a_run_that_is_shorter_in_the_target_is_refused() -> None:
    """Three runs in both: results of 6 units, of 7, and of 2."""
    graph, target = gg.trace(trained(mlp(6, 6, 7)), ROWS), gg.trace(trained(mlp(6, 7)), ROWS)
    with pytest.raises(gg.Unsupported, match=r"fewer layers `N` of shape .* than the graph; nothing can shrink"):
        extra_layers(graph, target, "", "")
