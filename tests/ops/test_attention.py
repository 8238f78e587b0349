"""Scaled dot-product attention, as a function and as the module that is live in train mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.layers import ScaledDotProductAttention
from graphgrow.rulecheck.square import Square
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares


def _tensors(draw: Draw) -> dict[str, Any]:
    """x is the query (n, h, l, d), y the key (n, h, s, d), z the value (n, h, s, v)."""
    n, h, length, s, d, v = (draw(2, 3) for _ in range(6))
    return {"x": normal_tensor(draw, n, h, length, d), "y": normal_tensor(draw, n, h, s, d),
            "z": normal_tensor(draw, n, h, s, v)}  # fmt: skip


def _function(draw: Draw) -> nn.Module:
    return Probe(lambda m: op(F.scaled_dot_product_attention, m.x, m.y, m.z), _tensors(draw))


def _scaled(draw: Draw) -> nn.Module:
    return Probe(lambda m: op(F.scaled_dot_product_attention, m.x, m.y, m.z, scale=0.3), _tensors(draw))


def _masked(shape: Callable[..., tuple[int, ...]]) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        sources = _tensors(draw)
        n, h, length, _ = sources["x"].shape
        sources["mask"] = normal_tensor(draw, *shape(n, h, length, sources["y"].shape[2]))
        return Probe(lambda m: op(F.scaled_dot_product_attention, m.x, m.y, m.z, m.mask), sources)

    return build


def _module(dropout: float, scale: float | None = None) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        layer = ScaledDotProductAttention(dropout_p=dropout, scale=scale)
        return Probe(lambda m: m.op(m.x, m.y, m.z), _tensors(draw), {"op": layer})

    return build


SCORED = "free>free zero>free mean>free copy>copy"
BATCH = "free>free|zero zero>free|zero mean>free|zero copy>copy|share"  # as the values hold them
VALUE = "free>free zero>zero mean>mean copy>copy share>share"
READ = "free>- zero>- mean>- copy>- share>-"
PLAIN = {"x.0": BATCH, "x.1": BATCH, "x.2": SCORED, "x.3": READ, "z.3": VALUE}

CASES = [
    Case((F.scaled_dot_product_attention,), _function, PLAIN),
    Case((F.scaled_dot_product_attention,), _scaled, PLAIN, "scaled"),
    Case((F.scaled_dot_product_attention,), _masked(lambda n, h, t, s: (n, h, t, s)), PLAIN, "mask"),
    Case((F.scaled_dot_product_attention,), _masked(lambda n, h, t, s: (t, s)), PLAIN, "mask-for-all"),
    Case((ScaledDotProductAttention,), _module(0.0), PLAIN),
    Case((ScaledDotProductAttention,), _module(0.0, 0.3), PLAIN, "scaled"),
    Case((ScaledDotProductAttention,), _module(0.5), PLAIN, "dropout"),
]  # fmt: skip


test_square = squares(CASES, 4)


def test_dropped_weights_are_noise() -> None:
    assert Square.of(_module(0.5)(lambda low, high: low), (ScaledDotProductAttention,)).facts.noises
    assert not Square.of(_module(0.0)(lambda low, high: low), (ScaledDotProductAttention,)).facts.noises


def test_groups_of_queries_that_share_a_key_grow_group_by_group() -> None:
    def build(m: Any) -> Any:
        return op(F.scaled_dot_product_attention, m.x, m.y, m.z, enable_gqa=True)

    shapes = {"x": (2, 4, 3, 2), "y": (2, 2, 3, 2), "z": (2, 2, 3, 2)}
    probe = Probe(build, {name: normal_tensor(lambda low, high: low, *shape) for name, shape in shapes.items()})
    square = Square.of(probe, (F.scaled_dot_product_attention,))
    assert set(square.spaces()) == {"x.0", "x.1:0", "x.1:1", "x.2", "x.3", "z.3"}
    square.check_all(lambda low, high: low)


def test_a_causal_mask_counts_the_queries() -> None:
    class Latent(nn.Module):
        def __init__(self, causal: bool) -> None:
            super().__init__()
            self.query, self.key, self.causal = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 4), causal

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key = self.query.expand(x.size(0), -1, -1), self.key(x)
            return F.scaled_dot_product_attention(query, key, key, is_causal=self.causal).mean(1)

    torch.manual_seed(0)
    for causal in (True, False):
        graph = gg.trace(Latent(causal), torch.randn(2, 4, 4))
        assert ("split(query)" in map(str, graph.mutations("split"))) is not causal
