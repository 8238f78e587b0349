"""einops' functions and layers are traced through, and what they rearrange grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
from einops.layers.torch import EinMix
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved


class Model(nn.Module):
    """Parts by name, and a forward over them."""

    def __init__(self, run: Callable[..., torch.Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.run(self, *inputs)


def listed() -> Model:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.last(einops.rearrange([m.a(x), m.b(x)], "k b n c -> b n (c k)"))

    return Model(run, a=nn.Linear(5, 6), b=nn.Linear(5, 6), last=nn.Linear(12, 3))


def repeated() -> Model:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.last(einops.repeat(m.a(x).mean(1), "b c -> b n c", n=x.shape[1]) * m.b(x))

    return Model(run, a=nn.Linear(5, 6), b=nn.Linear(5, 6), last=nn.Linear(6, 3))


def summed() -> Model:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        scores = einops.einsum(m.a(x), m.b(x), "b i d, b j d -> b i j")
        return m.last(einops.einsum(scores, m.c(x), "b i j, b j d -> b i d"))

    return Model(run, a=nn.Linear(5, 6), b=nn.Linear(5, 6), c=nn.Linear(5, 7), last=nn.Linear(7, 3))


def mixed() -> Model:
    layer = EinMix("b n c -> b n d", weight_shape="c d", bias_shape="d", c=6, d=8)
    return Model(lambda m, x: m.last(m.mix(m.a(x)).relu()), a=nn.Linear(5, 6), mix=layer, last=nn.Linear(8, 3))


def mixed_by_head() -> Model:
    layer = EinMix("b n (h c) -> b n (h d)", weight_shape="h c d", h=2, c=3, d=4)
    return Model(lambda m, x: m.last(m.mix(m.a(x)).relu()), a=nn.Linear(5, 6), mix=layer, last=nn.Linear(8, 3))


def packed() -> Model:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        both, shapes = einops.pack([m.a(x), m.b(x[:, None])], "b * c")
        first, second = einops.unpack(both.relu(), shapes, "b * c")
        return m.last(first.mean(1)) + m.last(second.mean((1, 2)))

    return Model(run, a=nn.Linear(5, 6), b=nn.Linear(5, 6), last=nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("build", "growing"),
    [
        (listed, {"a": 6}),
        (repeated, {"a": 6}),
        (summed, {"a": 6, "c": 7}),
        (mixed, {"a": 6, "mix": 8}),
        (mixed_by_head, {"a:0": 2, "a:1": 3, "mix": 4}),
        (packed, {"a": 6}),
    ],
)
def test_what_is_rearranged_grows(build: Callable[[], Model], growing: dict[str, int]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(2, 4, 5)
    graph = gg.trace(model, x)
    assert {group.name: group.size for group in graph.groups if group.frozen is None} == growing
    torch.testing.assert_close(graph.module(x), model(x), rtol=0, atol=0)
    for mutation in [*graph.mutations("widen"), *graph.mutations("split")]:
        grown = gg.apply(graph, mutation)
        assert_preserved(graph, grown)
        longer = torch.randn(3, 7, 5)
        torch.testing.assert_close(grown.module(longer), model(longer))


def test_einops_is_left_as_it_was() -> None:
    known = dict(einops._backends._type2backend)
    gg.trace(listed(), torch.randn(2, 4, 5))
    assert einops._backends._type2backend == known
