"""What masks choose, and what is repeated as often as a tensor says, is looked up at places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import graphgrow as gg
from graphgrow.layers import require_decision
from tests.capture.tracing.between import Between, Net, assert_follows, assert_grows, count, groups, rows
from tests.preserved import assert_preserved

BETWEEN: dict[str, Between] = {
    "rows of a mask": lambda h, x: h[x[:, 0] > 0],
    "rows of two masks": lambda h, x: h[(x[:, 0] > -1) & ~x[:, 1].isnan()] * 2,
    "columns of a mask behind a slice": lambda h, x: h.t()[:, x[:, 0] > 0].t(),
    "a mask of two axes": lambda h, x: h.unsqueeze(1).expand(-1, 3, -1)[x > 0],
    "masked_select": lambda h, x: h * torch.masked_select(x, x > 0).sum(),
    "where": lambda h, x: h[torch.where(x[:, 0] > 0)],
    "argwhere": lambda h, x: h[(x[:, 0] > 0).argwhere()[:, 0]],
    "rows repeated": lambda h, x: torch.repeat_interleave(h, groups(x) + 1, dim=0),
    "columns repeated, by name": lambda h, x: h.t().repeat_interleave(repeats=groups(x), dim=-1).t(),
    "rows repeated, their number given": lambda h, x: h.repeat_interleave(
        groups(x), 0, output_size=int(groups(x).sum())
    ),
    "rows repeated, one number for all": lambda h, x: h.repeat_interleave(groups(x).sum().view(1), 0),
    "rows looked up as often": lambda h, x: h[torch.repeat_interleave(groups(x))],
    "rows looked up as often, by name": lambda h, x: h[torch.repeat_interleave(repeats=groups(x))],
    "all entries repeated": lambda h, x: h.repeat_interleave(count(x).view(1)).view(-1, 6),
}


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_other_inputs_get_what_the_model_gives_them(name: str) -> None:
    assert_follows(BETWEEN[name])


@pytest.mark.parametrize("name", sorted(set(BETWEEN) - {"all entries repeated"}))
def test_the_other_axes_grow(name: str) -> None:
    assert_grows(BETWEEN[name])


def _kept(write: Callable[[torch.Tensor, torch.Tensor], None]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def between(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        write(h, x)
        return h

    return between


WRITTEN: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {
    "a number": lambda h, x: h.__setitem__(x[:, 0] > 0, 0.5),
    "a number where the width says so": lambda h, x: h.__setitem__(h > 0.3, 0.3),
    "a tensor without axes": lambda h, x: h.__setitem__(x[:, 0] > 0, h.mean()),
    "a row": lambda h, x: h.__setitem__(x[:, 0] > 0, h[-1].clone()),
    "rows": lambda h, x: h.__setitem__((x[:, 0] > 0, slice(None)), h[x[:, 0] > 0] * 2),
    "columns": lambda h, x: h.t().__setitem__((slice(None), x[:, 0] > 0), 1),
    "a mask of two axes": lambda h, x: h.view(-1, 3, 2).__setitem__(x > 0, 0.0),
    "rows of numbers": lambda h, x: h.__setitem__((x[:, 0] > 0).nonzero(as_tuple=True), h.mean(0)),
}


REFUSED = {("dynamo", "rows"), ("dynamo", "rows of numbers")}


@pytest.mark.parametrize("way", ["fx", "dynamo"])
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_is_written_where_a_mask_says_so(name: str, way: str) -> None:
    model = Net(_kept(WRITTEN[name])).double().eval()
    if (way, name) in REFUSED:
        with pytest.raises(gg.CaptureError, match="needs the values of a tensor"):
            gg.trace(model, rows(4).double(), way=way)
        return
    graph = gg.trace(model, rows(4).double(), way=way)
    for many in (1, 4, 9):
        torch.testing.assert_close(graph.module(rows(many).double()), model(rows(many).double()))
    free = [group.name for group in graph.groups if group.frozen is None]
    assert any(group.startswith("first") for group in free) is (way == "fx")  # Dynamo's graphs write at masks
    for mutation in (*graph.mutations("widen"), *graph.mutations("split")):
        grown = gg.apply(graph, mutation)
        assert_preserved(graph, grown)
        assert gg.verify(graph, grown).preserved


def _marked(dtype: torch.dtype, one: Any) -> Between:
    def between(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        marks, named = torch.zeros(4, 6, dtype=dtype), torch.zeros(4, 6, dtype=dtype)
        marks[x[:, 0] > 0] = one
        named[x[:, 0].argmax(), 1:] = one
        return h * marks + h * named

    return between


@pytest.mark.parametrize(("dtype", "one"), [(torch.int64, 1), (torch.bool, True), (torch.float32, 0.5)])
def test_a_tensor_that_the_forward_makes_of_numbers_is_written_into(dtype: torch.dtype, one: Any) -> None:
    model = Net(_marked(dtype, one)).eval()
    graph = gg.trace(model, rows(4), way="fx")
    assert not any(node.target is require_decision for node in graph.module.graph.nodes)
    for x in (rows(4), -rows(4), rows(9)[5:]):
        assert torch.equal(graph.module(x), model(x))


def test_whole_numbers_take_a_number_as_torch_writes_it() -> None:
    def between(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        counts = (x[:, 0] * 4).long()
        counts[x[:, 1] > 0] = 2.7  # which becomes 2
        return h * counts.unsqueeze(1)

    model = Net(between).eval()
    graph = gg.trace(model, rows(4), way="fx")
    assert torch.equal(graph.module(rows(9)), model(rows(9)))
