"""Packed projections in the spellings that people use: heads and head width grow and split, exactly.

One parameter holds the rows of q, of k and of v; a head's width is appended with fresh rows for q and v and zero rows
for k (their product must not change), and split with shares of q's rows beside copies of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.preserved import assert_preserved

HEADS, WIDTH = 3, 4
SIZE = HEADS * WIDTH
Parts = tuple[Any, Any, Any]


def _timm(m: Any, x: Any) -> Parts:
    b, n, c = x.shape
    q, k, v = m.qkv(x).reshape(b, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _swin(m: Any, x: Any) -> Parts:
    b, n, _ = x.shape
    qkv = m.qkv(x).reshape(b, n, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
    return qkv[0], qkv[1], qkv[2]


def _iterated(m: Any, x: Any) -> Parts:
    b, n, _ = x.shape
    q, k, v = m.qkv(x).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    return q, k, v


def _selected(m: Any, x: Any) -> Parts:
    qkv = m.qkv(x).unflatten(-1, (3, HEADS, WIDTH)).transpose(1, 3)  # (b, heads, 3, n, width)
    return qkv.select(2, 0), qkv[:, :, 1], qkv[:, :, -1]


def _heads_first(m: Any, x: Any) -> Parts:
    qkv = m.qkv(x).view(*x.shape[:2], HEADS, 3, WIDTH)
    q, k, v = (qkv[..., i, :].transpose(1, 2) for i in range(3))
    return q, k, v


def _interleaved(m: Any, x: Any) -> Parts:
    q, k, v = m.qkv(x).view(*x.shape[:2], HEADS, WIDTH, 3).transpose(1, 2).unbind(-1)
    return q, k, v


def _neox(m: Any, x: Any) -> Parts:
    q, k, v = m.qkv(x).view(*x.shape[:2], HEADS, 3 * WIDTH).transpose(1, 2).chunk(3, dim=-1)
    return q, k, v


def _nano_gpt(m: Any, x: Any) -> Parts:
    b, n, c = x.size()
    q, k, v = (part.view(b, n, HEADS, c // HEADS).transpose(1, 2) for part in m.qkv(x).split(SIZE, dim=2))
    return q, k, v


def _scaled_first(m: Any, x: Any) -> Parts:
    """Operators between the view and the taking apart are worked at every position."""
    b, n, _ = x.shape
    qkv = (m.qkv(x).reshape(b, n, 3, HEADS, WIDTH) * 2.0).permute(2, 0, 3, 1, 4) * m.gain
    return qkv[0], qkv[1], qkv[2]


def _biases(m: Any, x: Any) -> Parts:
    """The bias of timm's Swin V2 and BEiT: a concatenation whose middle is a buffer of zeros."""
    b, n, _ = x.shape
    qkv = F.linear(x, m.qkv.weight, torch.cat((m.q_bias, m.k_bias, m.v_bias)))
    q, k, v = qkv.reshape(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _key_value(m: Any, x: Any) -> Parts:
    """Pairs of keys and values, as in pyramid transformers."""
    b, n, _ = x.shape
    kv = m.kv(x).reshape(b, n, 2, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
    return m.q(x).reshape(b, n, HEADS, WIDTH).permute(0, 2, 1, 3), kv[0], kv[1]


SPELLINGS = [
    _timm, _swin, _iterated, _selected, _heads_first, _interleaved, _neox, _nano_gpt, _scaled_first, _biases,
    _key_value,
]  # fmt: skip


class _Model(nn.Module):
    def __init__(self, parts: Callable[[Any, Any], Parts], fused: bool) -> None:
        super().__init__()
        self._parts, self._fused = parts, fused
        self.embed, self.norm, self.head = nn.Linear(5, SIZE), nn.LayerNorm(SIZE), nn.Linear(SIZE, 2)
        self.qkv, self.proj = nn.Linear(SIZE, 3 * SIZE), nn.Linear(SIZE, SIZE)
        self.q, self.kv = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 2 * SIZE)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(SIZE)), nn.Parameter(torch.randn(SIZE))
        self.gain = nn.Parameter(torch.rand(HEADS, 1, 1) + 0.5)
        self.register_buffer("k_bias", torch.zeros(SIZE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        x = self.embed(x)
        q, k, v = self._parts(self, self.norm(x))
        if self._fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1) @ v
        result: torch.Tensor = self.head(x + self.proj(mixed.transpose(1, 2).reshape(b, n, -1)))
        return result


def _graph(parts: Callable[[Any, Any], Parts], fused: bool = False) -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(_Model(parts, fused).double(), torch.randn(2, 4, 5, dtype=torch.float64))


@pytest.mark.parametrize("parts", SPELLINGS)
def test_every_axis_of_an_attention_grows_and_splits(parts: Callable[[Any, Any], Parts]) -> None:
    graph = _graph(parts, fused=parts is _swin)
    within = [group for group in graph.groups if group.frozen is None and group.name != "embed"]
    assert sorted({group.size for group in within}) == [HEADS, WIDTH]
    for group in within:
        for text in (f"widen({group.name}, extra=2)", f"split({group.name})"):
            child = gg.apply(graph, text)
            assert child.steps[-1].exact_in == {"eval", "train"}
            assert_preserved(graph, child)


@pytest.mark.parametrize("parts", [_timm, _interleaved, _biases])
def test_rows_of_a_packed_projection_are_filled_part_by_part(parts: Callable[[Any, Any], Parts]) -> None:
    """By hand: a new unit of a head has fresh rows for q, zero rows for k, fresh ones for v, and is read with zero."""
    graph = _graph(parts)
    width = next(g for g in graph.groups if g.size == WIDTH)
    child = gg.apply(graph, f"widen({width.name}, extra=1)")
    weight, old = (g.module.get_submodule("qkv").weight.detach() for g in (child, graph))
    if parts is _interleaved:
        weight, old = (w.unflatten(0, (HEADS, -1, 3)).permute(2, 0, 1, 3) for w in (weight, old))
    else:
        weight, old = (w.unflatten(0, (3, HEADS, -1)) for w in (weight, old))
    assert torch.equal(weight[:, :, :WIDTH], old)
    fresh = [bool(weight[part, :, WIDTH:].any()) for part in range(3)]
    assert fresh == [True, False, True]
    reading = child.module.get_submodule("proj").weight.unflatten(1, (HEADS, WIDTH + 1))
    assert not reading[..., WIDTH].any()


def test_both_products_learn_from_the_start() -> None:
    """Fresh rows of q give k's zero rows a gradient at once; zero columns of the projection get one too."""
    graph = _graph(_timm)
    width = next(g for g in graph.groups if g.size == WIDTH)
    child = gg.apply(graph, f"widen({width.name}, extra=1)")
    child.module(torch.randn(2, 4, 5, dtype=torch.float64)).square().sum().backward()
    keys = child.module.get_submodule("qkv").weight.grad.unflatten(0, (3, HEADS, -1))[1, :, WIDTH]
    assert keys.norm() > 1e-6
    assert child.module.get_submodule("proj").weight.grad.unflatten(1, (HEADS, -1))[..., WIDTH].norm() > 1e-6


def test_an_axis_of_many_positions_is_frozen_as_a_whole() -> None:
    """Nine parts are no longer told apart: their width is refused, not guessed."""

    class Nine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed, self.head = nn.Linear(5, 36), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = self.packed(x).unflatten(-1, (9, 4)).unbind(1)
            result: torch.Tensor = self.head(parts[0] * parts[1] + parts[8])
            return result

    graph = gg.trace(Nine(), torch.randn(2, 5))
    assert "indexed by position" in str(graph.group("packed:0").frozen)
    assert_preserved(graph, gg.apply(graph, "widen(packed:1, extra=2)"))
