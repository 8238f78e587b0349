"""Masks and paddings of minus infinity: where they end, and where nothing is closed by a zero."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.preserved import assert_preserved


class _Masked(nn.Module):
    """Two attentions behind a padding mask of minus infinity."""

    def __init__(self, spelled: bool) -> None:
        super().__init__()
        self.spelled, self.maps = spelled, nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(x[..., 0]).masked_fill(padding, -math.inf)
        for attention, maps in zip(self.attentions, self.maps, strict=True):
            if self.spelled:
                q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in maps(x).chunk(3, -1))
                attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
                x = x + attention.out_proj(attended.transpose(1, 2).flatten(2))
            else:
                x = x + attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]
        result: torch.Tensor = self.last(x)
        return result


@pytest.mark.parametrize("spelled", [True, False])
def test_a_mask_of_minus_infinity_ends_in_its_softmax(spelled: bool) -> None:
    torch.manual_seed(0)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    graph = gg.trace(_Masked(spelled).double(), (torch.randn(2, 5, 8).double(), padding))
    if spelled:
        mutations = [f"widen(maps.{i}:heads, extra=1)" for i in range(2)]
    else:
        mutations = [str(m) for m in graph.mutations("add-heads")]
    assert [text.partition("(")[2].split(".")[1][0] for text in mutations] == ["0", "1"]
    for mutation in mutations:
        assert_preserved(graph, gg.apply(graph, mutation, seed=1))


class _PaddedSame(nn.Module):
    """A maximum over windows, in front of which as much is padded as the stride leaves over: TensorFlow's "same"."""

    def __init__(self, kernel: int, stride: int, **changes: Any) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.filled, self.more = changes.pop("filled", -math.inf), changes.pop("more", 0)
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 1)
        self.pool = nn.MaxPool2d(kernel, stride, **changes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        amounts = []
        for size in (x.shape[-1], x.shape[-2]):
            windows = math.ceil(size / self.stride)
            total = (windows - 1) * self.stride + self.kernel - size + self.more
            amounts += [total // 2, total - total // 2]
        result: torch.Tensor = self.last(self.pool(F.pad(x, amounts, value=self.filled)))
        return result


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, (8, 9)), (3, 1, (6, 6)), (5, 3, (7, 9)), (2, 2, (5, 6))])
def test_a_padding_that_no_window_lies_in_ends_in_its_maximum(kernel: int, stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    graph = gg.trace(_PaddedSame(kernel, stride), torch.randn(2, 3, *size))
    for mutation in ("widen(first, extra=3)", "split(first, units=[1, 2])"):
        assert_preserved(graph, gg.apply(graph, mutation, seed=1))


class _PaddedModule(nn.Module):
    """The same by numbers that are written down, in one axis."""

    def __init__(self, front: int, end: int, own: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 5, 3), nn.ConstantPad1d((front, end), -math.inf), nn.MaxPool1d(4, 2, padding=own),
            nn.Conv1d(5, 2, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


@pytest.mark.parametrize(
    ("front", "end", "own", "goes"),
    [(3, 2, 0, True), (1, 1, 2, True), (4, 0, 0, False), (0, 4, 0, False), (2, 1, 2, False), (-1, 2, 0, False)],
)
def test_a_padding_as_wide_as_a_window_stays_infinite(front: int, end: int, own: int, goes: bool) -> None:
    torch.manual_seed(0)
    graph = gg.trace(_PaddedModule(front, end, own), torch.randn(2, 3, 10))
    if goes:
        assert torch.isfinite(graph.module(torch.randn(2, 3, 10))).all()
        assert_preserved(graph, gg.apply(graph, "widen(layers.0, extra=3)", seed=1))
        return
    with pytest.raises(gg.Declined, match="a product with what may be infinite"):
        gg.apply(graph, "widen(layers.0, extra=3)")


@pytest.mark.parametrize("changes", [{"filled": math.inf}, {"dilation": 2}, {"ceil_mode": True}, {"more": 3}])
def test_a_maximum_that_may_be_of_margins_alone_stays_infinite(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    graph = gg.trace(_PaddedSame(3, 2, **changes), torch.randn(2, 3, 8, 8))
    with pytest.raises(gg.Declined, match="a product with what may be infinite"):
        gg.apply(graph, "widen(first, extra=3)")


class _Prefilled(nn.Module):
    """Largest entries behind a table that is filled with minus infinity, as masks are begun."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        floor = torch.full((1, 1), -math.inf, dtype=x.dtype)
        result: torch.Tensor = self.last(self.first(x)) + torch.maximum(x[:, :1], floor).exp()
        return result


def test_a_new_table_of_minus_infinity_is_no_padding() -> None:
    torch.manual_seed(0)
    graph = gg.trace(_Prefilled(), torch.randn(3, 4))
    assert not graph.analysis.unknown
    assert_preserved(graph, gg.apply(graph, "widen(first, extra=2)", seed=1))
