"""The numbers of attributes are read off the grown graph."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.own_class.marked import mark
from graphgrow.own_class.numbers import numbers_of
from tests.own_class.models import Decoder

TOKENS = torch.randint(0, 11, (2, 5))


def test_heads_and_the_place_of_a_split_follow() -> None:
    model = Decoder().eval()
    marked = copy.deepcopy(model)
    mark(marked)
    grown = gg.apply(gg.trace(model, TOKENS), "add-heads(layers.0.attention, extra=2)")  # 2 heads, of 4 channels
    found = {str(origin): n for origin, n in numbers_of(grown.module, gg.trace(marked, TOKENS).module).items()}
    assert found["layers.0.attention.heads"] == 4
    assert found["layers.0.attention.inner"] == 16
    assert found["layers.0.attention.qkv.out_features"] == 48
    assert (found["layers.1.attention.heads"], found["layers.1.attention.inner"]) == (2, 8)
    assert found["layers.0.eps"] == 1e-5


class Packed(nn.Module):
    """Queries, keys and values in one map, cut at products of a configuration's numbers, as in Phi-3."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        inner = config.heads * config.width
        self.qkv = nn.Linear(6, inner + 2 * config.groups * config.width, bias=False)
        self.out = nn.Linear(inner, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, 6) -> the same."""
        packed, cut = self.qkv(x), self.config.heads * self.width
        more = self.config.groups * self.width
        parts = packed[..., :cut], packed[..., cut : cut + more], packed[..., cut + more :]
        q, k, v = (part.view(*x.shape[:2], -1, self.width).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        result: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return result


def packed(layers: int) -> tuple[Any, gg.Graph]:
    torch.manual_seed(0)
    config = SimpleNamespace(heads=4, groups=2, width=3)
    model = nn.Sequential(*(Packed(config) for _ in range(layers))).eval()
    return model, gg.trace(model, torch.randn(2, 5, 6))


def test_numbers_of_which_only_products_are_read_follow() -> None:
    model, graph = packed(1)
    grown = gg.apply(graph, "add-heads(0)")
    result: Any = gg.to_model(grown, model)
    assert vars(result[0].config) == {"heads": 6, "groups": 3, "width": 3}
    assert vars(model[0].config) == {"heads": 4, "groups": 2, "width": 3}
    x = torch.randn(3, 4, 6)
    assert torch.equal(result(x), grown.module(x))
    assert torch.allclose(result(x), model(x), atol=1e-6)


def test_what_is_read_of_a_quotient_follows() -> None:
    """As in Falcon, whose packed map is laid out by how many queries share a key."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.groups, self.inner = 4, 2, 12
            self.qkv, self.out = nn.Linear(6, 24), nn.Linear(12, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            width = self.inner // self.heads
            packed = self.qkv(x).view(*x.shape[:2], -1, self.heads // self.groups + 2, width)
            q, k, v = packed[..., :-2, :], packed[..., -2:-1, :], packed[..., -1:, :]
            q, k, v = (t.expand(q.shape).reshape(*x.shape[:2], self.heads, width).transpose(1, 2) for t in (q, k, v))
            attended = F.scaled_dot_product_attention(q, k, v)
            result: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
            return result

    model: Any = Shared().eval()
    grown = gg.apply(gg.trace(model, torch.randn(2, 5, 6)), "widen(qkv:0, extra=1)")  # a third group
    result: Any = gg.to_model(grown, model)
    assert (result.heads, result.groups, result.inner) == (6, 3, 18)
    x = torch.randn(3, 4, 6)
    assert torch.allclose(result(x), model(x), atol=1e-6)


def test_products_that_have_grown_apart_are_refused() -> None:
    model, graph = packed(2)
    grown = gg.apply(graph, "add-heads(0)")
    said = r"`0.config.heads` is 6 for `getitem.*` and `[01].width` is 3 for `view.*`, which makes 18, and `g.*` has 12"
    with pytest.raises(gg.ExportError, match=said):
        gg.to_model(grown, model)
    evenly: Any = gg.to_model(gg.apply(grown, "add-heads(1)"), model)
    assert (evenly[1].config.heads, evenly[0].config is evenly[1].config) == (6, True)


def test_what_a_check_alone_works_out_says_nothing() -> None:
    """XGLM checks the size of its scores by its heads; growth takes the check away, and leaves what it was made of.

    Its sizes that are products with the number of heads are such products again.
    """

    class Checked(Decoder):
        def __init__(self) -> None:
            super().__init__()
            for layer in self.layers:
                layer.attention.__class__ = Folded

    class Folded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            (n, length, _), heads = x.shape, cast(Any, self).heads
            q, k, v = self.qkv(x).split(self.inner, dim=-1)
            q, k, v = (t.view(n, length, heads, -1).transpose(1, 2).reshape(n * heads, length, -1) for t in (q, k, v))
            scores = torch.bmm(q, k.transpose(1, 2))
            if scores.size() != (n * heads, length, length):
                raise ValueError("other scores")
            attended = torch.bmm(scores.softmax(-1), v).view(n, heads, length, -1)
            result: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
            return result

    model: Any = Checked().eval()
    grown = gg.apply(gg.trace(model, TOKENS), "widen(layers.1.attention.qkv:0, extra=1)")
    result: Any = gg.to_model(grown, model)
    assert [layer.attention.heads for layer in result.layers] == [2, 3]
    others = torch.randint(0, 11, (3, 7))
    assert torch.allclose(result(others), model(others), atol=1e-5)


class Checking(nn.Module):
    """Refuses images of another number of channels than it was made for, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 3
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] != self.channels:
            raise ValueError("other channels")
        result: torch.Tensor = self.head(self.stem(images).mean((2, 3)))
        return result


def test_a_number_that_a_size_is_compared_with_follows_it() -> None:
    model: Any = Checking().eval()
    graph = gg.trace(model, torch.randn(2, 3, 5, 5))
    result: Any = gg.to_model(gg.apply(graph, "grow-inputs(stem, extra=2)"), model)
    assert (result.channels, model.channels) == (5, 3)
    images = torch.randn(3, 5, 6, 6)
    assert torch.allclose(result(images), model(images[:, :3]), atol=1e-6)
    with pytest.raises(ValueError, match="other channels"):
        result(images[:, :3])
