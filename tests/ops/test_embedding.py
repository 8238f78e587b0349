"""Embedding tables: their width grows, their length does not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"


def _indices(draw: Draw, count: int) -> torch.Tensor:
    return torch.tensor([[draw(0, count - 1) for _ in range(3)] for _ in range(2)])


def _module(**options: float) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        count, width = draw(2, 5), draw(2, 4)
        table = nn.Embedding(count, width, **options)  # type: ignore[arg-type]  # options of several types
        return Probe(lambda m: m.op(m.index), {}, {"op": table}, {"index": _indices(draw, count)})

    return build


def _function(draw: Draw) -> nn.Module:
    count, width = draw(2, 5), draw(2, 4)
    buffers = {"index": _indices(draw, count)}
    return Probe(lambda m: op(F.embedding, m.index, m.x), {"x": normal_tensor(draw, count, width)}, None, buffers)


def _bag(mode: str) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        bag = nn.EmbeddingBag(draw(3, 5), draw(2, 4), mode=mode)
        return Probe(lambda m: m.op(m.index), {}, {"op": bag}, {"index": _indices(draw, 3)})

    return build


def _flat_bags(draw: Draw) -> nn.Module:
    buffers = {"index": _indices(draw, 3).flatten(), "starts": torch.tensor([0, 2])}
    return Probe(lambda m: m.op(m.index, m.starts), {}, {"op": nn.EmbeddingBag(3, draw(2, 4))}, buffers)


def _weighed_bags(draw: Draw) -> nn.Module:
    bag = nn.EmbeddingBag(3, draw(2, 4), mode="sum")
    return Probe(
        lambda m: m.op(m.index, per_sample_weights=m.x), {"x": normal_tensor(draw, 2, 3)}, {"op": bag},
        {"index": _indices(draw, 3)},
    )  # fmt: skip


CASES = [
    Case((nn.Embedding,), _module(), {"op.weight.1": LINEAR}),
    Case((nn.Embedding,), _module(padding_idx=0), {"op.weight.1": LINEAR}, "padding"),
    Case((nn.Embedding,), _module(max_norm=1.0), {}, "limited-norm"),
    Case((F.embedding,), _function, {"x.1": LINEAR}),
    *(Case((nn.EmbeddingBag,), _bag(mode), {"op.weight.1": table}, mode)
      for mode, table in (("sum", LINEAR), ("mean", LINEAR), ("max", "free>free zero>zero mean>free copy>copy"))),
    Case((nn.EmbeddingBag,), _flat_bags, {"op.weight.1": LINEAR}, "offsets"),
    Case((nn.EmbeddingBag,), _weighed_bags, {"op.weight.1": LINEAR}, "weighed"),
]  # fmt: skip


test_square = squares(CASES, 5)


class Memory(nn.Module):
    """Each head looks up two rows; a bag has those of all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.rows = nn.Linear(5, 12), nn.EmbeddingBag(4, 3, mode="sum")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, places = self.heads(x).view(-1, 4, 3).topk(2)
        found: torch.Tensor = self.rows(places.flatten(1), per_sample_weights=scores.sigmoid().flatten(1))
        return found


def test_what_is_added_up_in_a_bag_does_not_grow() -> None:
    """One more head would add its rows to the sum: `widen` was off by all of the output."""
    graph = gg.trace(Memory().double(), torch.randn(7, 5).double())
    reasons = {str(group.frozen) for group in graph.groups}
    assert "rows of a bag by position (at `rows`)" in reasons
    assert not list(graph.mutations("widen")) + list(graph.mutations("split"))
