"""Reading and writing by position."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares
from tests.preserved import assert_preserved

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
PART = "free>free zero>zero mean>mean copy>copy share>share"
LEFT = "free>- zero>- mean>- copy>- share>-"  # a part of an axis that a slice leaves out
FINITE = "free>free zero>free mean>free copy>copy"
ADDED = "free>free zero>free|zero mean>free|mean copy>copy share>share"
CHOICE = "free>free zero>free|zero mean>free|mean copy>copy share>share"
SUM = "free>free zero>free|zero mean>free|mean copy>copy share>share"


def _on(target: Any, shape: tuple[int, ...], *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x, *arguments, **options), {"x": normal_tensor(draw, *shape)})


def _index(key: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: m.x[key], {"x": normal_tensor(draw, 3, 4, 5)})


def _half(draw: Draw) -> nn.Module:
    """A bound that is read off the axis itself: the first half, then the rest."""

    def run(m: Any) -> Any:
        half = m.x.size(-1) // 2
        return m.x[..., :half]

    return Probe(run, {"x": normal_tensor(draw, 2, 6)})


def _as_long_as(draw: Draw) -> nn.Module:
    """A bound that is another tensor's size: nothing says how the two belong together."""
    sources = {"x": normal_tensor(draw, 5, 2), "y": normal_tensor(draw, 3)}
    return Probe(lambda m: m.x[: m.y.size(0)], sources)


def _picked(draw: Draw, count: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(draw(0, 99)))


def _lookup(rank: int) -> Callable[[Draw], nn.Module]:
    """A table indexed by whole numbers, as relative positions are."""

    def build(draw: Draw) -> nn.Module:
        index = _picked(draw, 4, *(2, 3)[:rank])
        return Probe(lambda m: m.x[m.index], {"x": normal_tensor(draw, 4, 2, 3)}, None, {"index": index})

    return build


def _indexed(run: Callable[[Any], Any], *shape: int) -> Callable[[Draw], nn.Module]:
    """An operator on x (3, 4, 5) with whole numbers i below 3."""

    def build(draw: Draw) -> nn.Module:
        return Probe(run, {"x": normal_tensor(draw, 3, 4, 5)}, None, {"i": _picked(draw, 3, *shape)})

    return build


def _reading(target: Any, dim: int, wide: bool = True) -> Callable[[Any], Any]:
    return lambda m: op(target, m.x, dim, m.i[:, None, None].expand(2, 4, 5) if wide else m.i)


def _taking(target: Any) -> Callable[[Any], Any]:
    """An index that is broadcast over the other axes."""
    return lambda m: op(target, m.x, m.i[:, None, None], 0)


def _scattered(target: Any, by_rows: bool) -> Callable[[Draw], nn.Module]:
    """y written into x along axis 1, at places that an index of rows, or of y's own shape, names."""

    def build(draw: Draw) -> nn.Module:
        sources = {"x": normal_tensor(draw, 2, 3, 2), "y": normal_tensor(draw, 2, 3, 2)}
        index = torch.randperm(3, generator=torch.Generator().manual_seed(draw(0, 99)))
        index = index if by_rows else index[None, :, None].expand(2, 3, 2).contiguous()
        clone = isinstance(target, str) and target.endswith("_")
        return Probe(lambda m: op(target, m.x.clone() if clone else m.x, 1, m.i, m.y), sources, None, {"i": index})

    return build


def _added_beside(target: Any) -> Callable[[Draw], nn.Module]:
    """y added into x at the places of an index of its rows, which is expanded over all units."""

    def build(draw: Draw) -> nn.Module:
        sources = {"x": normal_tensor(draw, 2, 3, 2), "y": normal_tensor(draw, 2, 4, 2)}
        clone = isinstance(target, str) and target.endswith("_")

        def run(m: Any) -> Any:
            places = m.i[None, :, None].expand(2, -1, m.y.shape[2])
            return op(target, m.x.clone() if clone else m.x, 1, places, m.y)

        return Probe(run, sources, None, {"i": torch.tensor([2, 0, 2, 2])})

    return build


def _reduced(target: Any, by_rows: bool, reduction: str) -> Callable[[Draw], nn.Module]:
    """y along axis 1 of x, at places that come up several times, as wide as the values are."""

    def build(draw: Draw) -> nn.Module:
        sources = {"x": normal_tensor(draw, 2, 3, 2), "y": normal_tensor(draw, 2, 4, 2)}
        index = torch.tensor([2, 0, 2, 2])

        def run(m: Any) -> Any:
            places = m.i if by_rows else m.i[None, :, None].expand_as(m.y)
            return op(target, m.x, 1, places, m.y, reduction, include_self=False)

        return Probe(run, sources, None, {"i": index})

    return build


def _every(*names: str) -> dict[str, str]:
    return {name: PART if ":" in name else LINEAR for name in names}


SCATTER = {"x.0": FINITE, "x.2": FINITE}
ROWS: list[tuple[Any, str]] = [
    (torch.index_add, SUM), ("index_add", SUM), ("index_add_", SUM),
    (torch.index_copy, CHOICE), ("index_copy", CHOICE), ("index_copy_", CHOICE),
]  # fmt: skip

CASES = [
    *(Case((target,), _on(target, (2, 3, 4), 1), _every("x.0", "x.2")) for target in (torch.unbind, "unbind")),
    *(Case((target,), _on(target, (2, 3, 4), 1, 2), _every("x.0", "x.2")) for target in (torch.select, "select")),
    *(Case((target,), _on(target, (2, 4, 3), 1, 1, 2), {**_every("x.0", "x.1:1", "x.2"), "x.1:0": LEFT, "x.1:2": LEFT})
      for target in (torch.narrow, "narrow")),
    Case((torch.narrow,), _on(torch.narrow, (2, 4), -1, 0, 4), _every("x.0", "x.1"), "whole"),
    Case((torch.narrow,), _on(torch.narrow, (2, 4, 3), 1, -3, 2), _every("x.0", "x.2"), "from the end"),
    Case((operator.getitem,), _index((slice(None), 0)), _every("x.0", "x.2")),
    Case((operator.getitem,), _index((..., 1)), _every("x.0", "x.1"), "ellipsis"),
    Case((operator.getitem,), _index((slice(None), slice(1, 3))),
         {**_every("x.0", "x.1:1", "x.2"), "x.1:0": LEFT, "x.1:2": LEFT}, "slice"),
    Case((operator.getitem,), _index((slice(2, None), slice(None, -1))), {"x.0:0": LEFT, **_every("x.0:1", "x.2")},
         "slices"),
    Case((operator.getitem,), _index((slice(None), slice(-3, 99))), {"x.1:0": LEFT, **_every("x.0", "x.1:1", "x.2")},
         "from-the-end"),
    Case((operator.getitem,), _index((slice(None), None, slice(0, None))), _every("x.0", "x.1", "x.2"), "new-axis"),
    Case((operator.getitem,), _index((slice(None), slice(None, None, 2))), _every("x.0", "x.2"), "step"),
    Case((operator.getitem,), _half, {"x.0": LINEAR, "x.1:0": PART, "x.1:1": LEFT}, "half"),
    Case((operator.getitem,), _as_long_as, {"x.1": LINEAR}, "as-long-as"),
    Case((operator.getitem,), _lookup(2), _every("x.1", "x.2"), "table"),
    Case((operator.getitem,), _indexed(lambda m: m.x[:, m.i], 2), _every("x.0", "x.2"), "second"),
    Case((operator.getitem,), _indexed(lambda m: m.x[m.i, :, m.i], 2), _every("x.1"), "apart"),
    Case((operator.getitem,), _indexed(lambda m: m.x[m.i, m.i, 1:], 2), {}, "sliced-too"),
    Case((operator.getitem,), _indexed(lambda m: m.x[..., m.i], 2, 2), _every("x.0", "x.1"), "last"),
    Case((operator.getitem,), _index((slice(None), [0, 2])), _every("x.0", "x.2"), "list"),
    Case((operator.getitem,), _indexed(lambda m: m.x[None, m.i], 2), _every("x.1", "x.2"), "new-in-front"),
    Case((operator.getitem,), _indexed(lambda m: m.x[m.i, m.i, None], 2), _every("x.2"), "new-behind"),
    Case((operator.getitem,), _indexed(lambda m: m.x[m.i, None, m.i], 2), _every("x.2"), "new-between"),
    Case((operator.getitem,), _indexed(lambda m: m.x[..., None, m.i], 2), _every("x.0", "x.1"), "new-and-ellipsis"),
    Case((operator.getitem,), _indexed(lambda m: m.x[None, m.i, 1:], 2), _every("x.2"), "new-and-sliced"),
    *(Case((target,), _on(target, (2, 3, 4), 1, 1), _every("x.0", "x.2")) for target in (torch.roll, "roll")),
    Case((torch.roll,), _on(torch.roll, (2, 3), 1), {}, "flat"),
    *(Case((target,), _indexed(_reading(target, 1, wide=False), 2), _every("x.0", "x.2"))
      for target in (torch.index_select, "index_select")),
    *(Case((target,), _indexed(_reading(target, 0), 2), {"x.1": LINEAR, "x.2": LINEAR})
      for target in (torch.gather, "gather")),
    Case((torch.gather,), _indexed(lambda m: op(torch.gather, m.x, 0, m.i[:, None, None]), 2), {}, "some"),
    *(Case((target,), _indexed(_taking(target), 2), {"x.1": LINEAR, "x.2": LINEAR})
      for target in (torch.take_along_dim, "take_along_dim")),
    *(Case((target,), _added_beside(target), dict.fromkeys(("x.0", "x.2"), ADDED),
           "beside") for target in (torch.scatter_add, "scatter_add", "scatter_add_")),
    *(Case((target,), _scattered(target, False), {})
      for target in (torch.scatter, torch.scatter_add, "scatter", "scatter_add", "scatter_", "scatter_add_")),
    *(Case((target,), _reduced(target, False, how), SCATTER, how)
      for target in (torch.scatter_reduce, "scatter_reduce") for how in ("amax", "mean", "sum")),
    *(Case((target,), _reduced(target, True, how), SCATTER, how)
      for target in (torch.index_reduce, "index_reduce") for how in ("amin", "prod")),
    *(Case((target,), _scattered(target, True), {"x.0": table, "x.2": table}) for target, table in ROWS),
    *(Case((target,), _on(target, (2, 4, 3), 2, 1), {"x.0": FINITE, "x.2": FINITE})
      for target in (torch.topk, "topk", torch.kthvalue)),
    *(Case((target,), _on(target, (2, 4, 3), dim=0), {"x.1": FINITE, "x.2": FINITE})
      for target in (torch.sort, "sort", torch.cummax, "cummax", torch.cummin, "cummin", torch.argsort, "argsort")),
    Case((torch.sort,), _on(torch.sort, (2, 3)), {"x.0": FINITE}, "last"),
    *(Case((target,), _on(target, (2, 3, 3)), {"x.0": LINEAR}) for target in (torch.tril, "tril", torch.triu, "triu")),
]  # fmt: skip


test_square = squares(CASES, 2)


def test_a_slice_follows_what_it_was_cut_from() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 10), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.up(x)
            half = hidden.shape[-1] // 2
            result: torch.Tensor = self.down(F.silu(hidden[..., :half]) * hidden[..., half:])
            return result

    torch.manual_seed(0)
    graph = gg.trace(Gated(), torch.randn(3, 4))
    grown = gg.apply(graph, "widen(up, extra=3)")
    assert grown.module.get_submodule("up").out_features == 16
    assert gg.verify(graph, grown).preserved
    again = gg.apply(grown, "split(up:0, units=[1, 7])")
    assert again.module.get_submodule("down").in_features == 10
    assert gg.verify(grown, again).preserved


class _Prompted(nn.Module):
    """Rows of a parameter in front of those of the input, of which some are kept."""

    def __init__(self, keep: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.prompt, self.read, self.keep = nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 4, bias=False), keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([self.prompt.expand(x.size(0), -1, -1), x], 1)
        result: torch.Tensor = self.read(self.keep(rows, x)).sum(1)
        return result


MOVING: dict[str, Callable[[Any, Any], Any]] = {
    "from-the-end": lambda rows, x: rows[:, -6:],
    "to-the-end": lambda rows, x: rows[:, :-2],
    "between": lambda rows, x: rows[:, 2:-2],
    "beyond": lambda rows, x: rows[:, :100],
    "beyond-the-front": lambda rows, x: rows[:, -100:],
    "computed": lambda rows, x: rows[:, : x.size(1)],
    "computed-and-zero": lambda rows, x: rows[:, x.size(1) - 5 :],
    "half": lambda rows, x: rows[:, rows.size(1) // 2 :],
    "narrow": lambda rows, x: rows.narrow(1, 2, 4),
    "narrow-computed": lambda rows, x: rows.narrow(1, 0, x.size(1)),
    "parts": lambda rows, x: rows.split([2, rows.size(1) - 2], 1)[1],
    "equal-parts": lambda rows, x: rows.chunk(2, 1)[0],
    "at-places": lambda rows, x: rows.tensor_split([2], 1)[1],
}
STILL: dict[str, Callable[[Any, Any], Any]] = {
    "from-the-front": lambda rows, x: rows[:, 1:],
    "the-first": lambda rows, x: rows[:, :2],
    "behind-all": lambda rows, x: rows[:, 3:],
    "as-many-as-the-input": lambda rows, x: rows[:, -x.size(1) :],
}


@pytest.mark.parametrize("name", [*MOVING, *STILL])
def test_a_cut_holds_for_other_lengths_of_the_input(name: str) -> None:
    torch.manual_seed(0)
    model = _Prompted((MOVING | STILL)[name]).double()
    graph = gg.trace(model, torch.randn(2, 5, 4, dtype=torch.float64))
    growths = [*graph.mutations("widen"), *graph.mutations("split")]
    assert bool(growths) is (name in STILL)
    for growth in growths:
        grown = gg.apply(graph, growth).module
        for length in (1, 2, 5, 9):
            x = torch.randn(2, length, 4, dtype=torch.float64)
            torch.testing.assert_close(grown(x), model(x), rtol=1e-12, atol=1e-12)


def test_one_hot_rows_of_a_table() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 2)

        def forward(self, i: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(torch.tanh(F.one_hot(i, 7).float() @ self.table))
            return result

    torch.manual_seed(0)
    graph = gg.trace(Table(), torch.randint(7, (5,)))
    for mutation in graph.mutations("widen"):
        assert gg.verify(graph, gg.apply(graph, mutation)).preserved  # `.float()` stays float64 where that is compared
    assert [group.name for group in graph.groups if group.frozen is None] == ["table"]


def test_an_entry_that_is_only_measured_leaves_its_axis_free() -> None:
    """As BART asks `x[:, :, -1].shape` for the length of a sequence."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places, self.last = nn.Embedding(9, 6), nn.Embedding(8, 6), nn.Linear(6, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.tokens(ids)
            batch, length = x[:, :, -1].shape
            result: torch.Tensor = self.last(x + self.places(torch.arange(length).expand(batch, -1)))
            return result

    ids = torch.randint(0, 9, (2, 5))
    graph = gg.trace(Positions(), ids)
    assert graph.group("tokens").frozen is None
    for text in ("widen(tokens, extra=3)", "split(tokens, units=[5])"):
        assert_preserved(graph, gg.apply(graph, text))
        verdict = gg.verify(graph, gg.apply(graph, text))
        assert verdict.preserved, verdict
