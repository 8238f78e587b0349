"""A larger sibling keeps blocks of its own where the small model has nothing like them, closed as identity."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.models import resnet
from tests.bulk.families import torchvision
from tests.bulk.test_grow_to import LARGE_IMAGES, assert_same_function, assert_trains, trained

efficientnet = torchvision.models.efficientnet
ROWS = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def mobile(*depths: int, width: float = 1.0) -> nn.Module:
    """EfficientNet's own blocks: squeeze-excitation, and stochastic depth in train mode."""
    stages = [
        efficientnet.MBConvConfig(1, 3, 1, 12, 8, depths[0], width_mult=width),
        efficientnet.MBConvConfig(2, 5, 2, 8, 16, depths[1], width_mult=width),
        efficientnet.MBConvConfig(2, 3, 1, 16, 24, depths[2], width_mult=width),
    ]
    model: nn.Module = efficientnet.EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0, num_classes=5)
    return model


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[str, ...]]] = {
    "resnet": (
        partial(resnet.resnet, width=4, depth=1),
        partial(resnet.resnet, width=6, depth=3),
        ("stages.1.1", "stages.1.2", "stages.2.1", "stages.2.2"),
    ),
    "efficientnet": (partial(mobile, 1, 2, 1), partial(mobile, 2, 3, 2, width=2.0), ("features.1.1", "features.3.1")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_blocks_of_the_targets_own_are_closed_and_learn(name: str) -> None:
    build, larger, own = PAIRS[name]
    torch.manual_seed(0)
    small, large = trained(build()), larger().double()
    graph = gg.trace(small, LARGE_IMAGES)
    grown = gg.grow_to(graph, large)
    assert_same_function(small, large, LARGE_IMAGES)
    assert_same_function(small, grown.graph.module, LARGE_IMAGES)
    assert gg.verify(graph, grown.graph).preserved is True
    assert grown.own == own
    assert f"the model's own, closed or read by zeros: {', '.join(own)}" in str(grown)
    twin, before = copy.deepcopy(large).train(), copy.deepcopy(small).train()
    assert torch.allclose(twin(LARGE_IMAGES), before(LARGE_IMAGES), rtol=1e-9, atol=1e-10)  # train mode too
    assert_trains(large, LARGE_IMAGES)
    for path in own:  # a second step reaches every weight of theirs
        large.zero_grad()
        large.train()(LARGE_IMAGES).square().mean().backward()
        parameters = list(large.get_submodule(path).parameters())
        assert all(p.grad is not None and bool(p.grad.ne(0).any()) for p in parameters if p.dim() > 1)


class Steps(nn.Module):
    """A map to another width, and further steps behind it; the optimizer's groups are by its parts."""

    def __init__(self, depth: int, step: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(6, 2)
        self.steps = nn.ModuleList([nn.Sequential(nn.Linear(4, 6), nn.GELU()), *(step() for _ in range(depth - 1))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        for step in self.steps:
            h = step(h)
        result: torch.Tensor = self.head(h)
        return result


class Residual(nn.Module):
    """x + linear(tanh(linear(x)))."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 5), nn.Linear(5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.down(torch.tanh(self.up(x)))
        return result


class Gated(Residual):
    """Residual only where its branch is added with a factor of x's own, which no zero of a map would close."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x * self.down(torch.tanh(self.up(x)))
        return result


def dense(blocks: tuple[int, ...], growth: int = 4, stem: int = 6) -> nn.Module:
    """Torchvision's DenseNet: each layer reads a list of all layers before it."""
    model: nn.Module = torchvision.models.DenseNet(growth, blocks, stem, bn_size=2, num_classes=5)
    return model


@pytest.mark.parametrize(
    ("small", "large", "own"),
    [
        (dense((2, 3)), dense((2, 5)), ["2.denselayer4", "2.denselayer5"]),
        (dense((1, 2, 2)), dense((3, 2, 3), stem=10), ["1.denselayer2", "1.denselayer3", "3.denselayer3"]),
        (dense((2, 1)), dense((3, 2), growth=6), ["1.denselayer3", "2.denselayer2"]),
    ],
    ids=["deeper", "with a wider stem", "with more growth"],
)
def test_further_layers_of_a_dense_block_are_read_by_zeros(small: nn.Module, large: nn.Module, own: list[str]) -> None:
    small, large = trained(small), large.double()
    optimizer = torch.optim.Adam(small.parameters())
    small(LARGE_IMAGES).square().mean().backward()
    optimizer.step()
    before = copy.deepcopy(small)
    grown = gg.grow_to(gg.trace(small, LARGE_IMAGES), large, optimizer=optimizer)
    assert list(grown.own) == [f"features.denseblock{path}" for path in own]
    assert_same_function(before, large, LARGE_IMAGES)
    assert_same_function(before, grown.graph.module, LARGE_IMAGES)
    twin = copy.deepcopy(large).train()
    torch.testing.assert_close(twin(LARGE_IMAGES), before.train()(LARGE_IMAGES), rtol=1e-9, atol=1e-10)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, large.parameters()))
    assert all(optimizer.state[p]["exp_avg_sq"].shape == p.shape for p in held if p in optimizer.state)
    weight = large.get_parameter("classifier.weight")
    assert bool(optimizer.state[weight]["exp_avg_sq"].ne(0).all())
    assert_trains(large, LARGE_IMAGES)


class Joined(nn.Module):
    """Layers whose results stand beside each other, and something over all of them."""

    def __init__(self, depth: int, over: Callable[[int], nn.Module], width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth))
        self.over, self.head = over(width * (depth + 1)), nn.Linear(width * (depth + 1), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.stem(x)]
        for layer in self.layers:
            parts.append(layer(parts[0]))
        result: torch.Tensor = self.head(self.over(torch.cat(parts, -1)))
        return result


@pytest.mark.parametrize(
    ("over", "refused"),
    [(lambda width: nn.ReLU(), False), (nn.LayerNorm, True), (lambda width: nn.Softmax(-1), True),
     (lambda width: nn.GroupNorm(1, width), True), (nn.BatchNorm1d, False)],
)  # fmt: skip
def test_what_counts_all_that_is_joined_is_found(over: Callable[[int], nn.Module], refused: bool) -> None:
    small, large = trained(Joined(1, over)), Joined(2, over).double()
    state = copy.deepcopy(large.state_dict())
    graph = gg.trace(small, ROWS)
    if refused:
        with pytest.raises((gg.NotPreserved, gg.Unsupported)):
            gg.grow_to(graph, large)
        assert all(torch.equal(tensor, state[name]) for name, tensor in large.state_dict().items())
        return
    assert gg.grow_to(graph, large).own == ("layers.1",)
    assert_same_function(small, large, ROWS)


class Upsampled(nn.Module):
    """A transposed convolution reads what is joined along the first axis of its weight, a depthwise one as its rows."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()) for _ in range(depth))
        width = 4 * depth + 3
        self.deep, self.up = nn.Conv2d(width, width, 3, groups=width), nn.ConvTranspose2d(width, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.up(self.deep(torch.cat([x, *(layer(x) for layer in self.layers)], 1)))
        return result


def test_what_is_joined_is_read_along_whichever_axis() -> None:
    small, large = trained(Upsampled(1)), Upsampled(3).double()
    gg.grow_to(gg.trace(small, LARGE_IMAGES), large)
    assert_same_function(small, large, LARGE_IMAGES)
    assert not large.get_parameter("up.weight")[7:].any()
    assert bool(large.get_parameter("deep.weight")[7:].ne(0).all())
    assert_trains(large, LARGE_IMAGES)


def test_an_optimizer_trains_them_with_the_block_in_front() -> None:
    small, large = trained(Steps(1, Residual)), Steps(3, Residual).double()
    optimizer = torch.optim.Adam([
        {"params": [*small.stem.parameters(), *small.head.parameters()], "lr": 1e-3},
        {"params": small.steps.parameters(), "lr": 1e-2},
    ])  # fmt: skip
    small(ROWS).square().mean().backward()
    optimizer.step()
    wanted = small(ROWS).detach()
    grown = gg.grow_to(gg.trace(small, ROWS), large, optimizer=optimizer)
    assert grown.own == ("steps.1", "steps.2")
    first, second = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert first == {id(p) for part in (large.stem, large.head) for p in part.parameters()}
    assert second == {id(p) for p in large.steps.parameters()}
    torch.testing.assert_close(large(ROWS), wanted, rtol=1e-10, atol=1e-12)
    large(ROWS).square().mean().backward()
    optimizer.step()
    assert not torch.allclose(large(ROWS), wanted)


def test_what_is_closed_already_is_not_closed_twice() -> None:
    large = Steps(2, Residual).double()
    nn.init.zeros_(large.get_parameter("steps.1.up.weight"))  # which closes nothing: tanh(bias) goes on
    nn.init.zeros_(large.get_parameter("steps.1.down.weight"))
    nn.init.zeros_(large.get_parameter("steps.1.down.bias"))
    kept = large.get_parameter("steps.1.up.bias").clone()
    gg.grow_to(gg.trace(trained(Steps(1, Residual)), ROWS), large)
    assert torch.equal(large.get_parameter("steps.1.up.bias"), kept)


def test_refusals() -> None:
    graph = gg.trace(trained(Steps(1, Residual)), ROWS)
    with pytest.raises(gg.Unsupported, match=r"`steps.0` has 1 blocks and the target 2, but none can be copied"):
        gg.grow_to(graph, Steps(2, Gated).double())
    with torch.device("meta"):
        empty = Steps(2, Residual).double()
    with pytest.raises(gg.Unsupported, match=r"`steps.1.up.weight` has no values: it is on the meta device"):
        gg.grow_to(graph, empty)
    wild = Steps(2, Residual).double()
    nn.init.constant_(wild.get_parameter("steps.1.up.weight"), float("nan"))
    before = copy.deepcopy(wild.state_dict())
    with pytest.raises(gg.NotPreserved):
        gg.grow_to(graph, wild)
    assert torch.equal(wild.get_parameter("steps.1.down.weight"), before["steps.1.down.weight"])
