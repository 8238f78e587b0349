"""Attention without a head axis: the same numbers with one, and a file that onnxruntime runs to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.export.heads import WithHeads

CALLS: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None, dict[str, Any]]] = {
    "one sequence": ((5, 4), None, {}),
    "one sequence, masked": ((5, 4), (5, 5), {}),
    "a batch": ((3, 5, 4), None, {"scale": 0.3}),
    "a batch, causal": ((3, 5, 4), None, {"is_causal": True}),
    "a batch, one mask": ((3, 5, 4), (5, 5), {}),
    "a batch, masks": ((3, 5, 4), (3, 5, 5), {}),
    "with heads": ((3, 2, 5, 4), (3, 1, 5, 5), {}),
    "two batch axes": ((3, 2, 2, 5, 4), None, {"is_causal": True}),
    "two batch axes, masks": ((3, 2, 2, 5, 4), (3, 1, 1, 5, 5), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_stay_what_they_are(name: str) -> None:
    shape, masked, options = CALLS[name]
    query, key, value = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    mask = None if masked is None else torch.randn(masked, dtype=torch.float64)
    scale = options.get("scale", shape[-1] ** -0.5)
    scores = query @ key.transpose(-1, -2) * scale + (0 if mask is None else mask)
    if options.get("is_causal"):
        scores = scores.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), float("-inf"))
    wanted = scores.softmax(-1) @ value
    with WithHeads():
        found = F.scaled_dot_product_attention(query, key, value, mask, **options)
        named = F.scaled_dot_product_attention(query=query, key=key, value=value, attn_mask=mask, **options)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-13)
    assert torch.equal(found, named)


class OneHead(nn.Module):
    """Attention over (batch, length, width), as it stands in many a model with one head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        result: torch.Tensor = self.out(F.scaled_dot_product_attention(q, k, v, None, 0.0, True))
        return result


def test_a_model_without_a_head_axis_is_exported(tmp_path: Path) -> None:
    graph = gg.trace(OneHead(), torch.randn(2, 5, 8))
    grown = gg.apply(graph, [str(next(iter(graph.mutations("widen"))))])
    record = gg.export_onnx(grown, tmp_path / "model.onnx")
    assert record.dynamic_batch
    assert record.max_error <= record.bound
