"""Runs of positions against torch's own indexing, and pieces of draws against one draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.rewrite import runs as subject
from graphgrow.rewrite.runs import PIECE, assign, deviation_of, draw_normal, runs, spread
from tests.effort import examples


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_runs_by_hand() -> None:
    assert runs(torch.tensor([0, 1, 2, 5, 6, 9]), torch.tensor([4, 5, 6, 7, 8, 0])) == [(0, 4, 3), (5, 7, 2), (9, 0, 1)]
    assert runs(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])) == [(0, 0, 2), (2, 1, 1)]
    assert runs(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64)) == []
    assert runs(torch.arange(0, 200, 2), torch.arange(100)) is None


@examples(60)
@given(data=st.data())
@pytest.mark.parametrize("most", [0, 64])
def test_spread_and_assign_are_index_select_and_index_copy(most: int, data: st.DataObject) -> None:
    size, axis = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 2))
    shape = [2, 3, 4]
    shape[axis] = size
    old = torch.randn(shape, generator=_generator())
    if data.draw(st.booleans()):
        old = old.transpose(0, 2).contiguous().transpose(0, 2)
    source = torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9)))
    placed = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(source), max_size=len(source))))
    before = old.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "MOST_RUNS", most)
        new = spread(old, axis, source, placed)
        where = torch.nonzero(~placed).flatten()
        kind = data.draw(st.sampled_from(["number", "row", "whole"]))
        rows = old.double().mean(axis, keepdim=True) if kind == "row" else torch.randn(
            [len(where) if i == axis else n for i, n in enumerate(shape)], generator=_generator(), dtype=torch.float64
        )  # fmt: skip
        assign(new, axis, where, 2.5 if kind == "number" else rows)
    wanted = old.index_select(axis, source)
    target = list(wanted.shape)
    target[axis] = len(where)
    values = torch.full(target, 2.5) if kind == "number" else rows.float().expand(target)
    wanted.index_copy_(axis, where, values.contiguous())
    assert torch.equal(new, wanted)
    assert torch.equal(old, before)


@pytest.mark.parametrize(
    "shape", [(3,), (15,), (16,), (PIECE + 5,), (3 * PIECE + 21,), (700, 300), (5000, 17), (3, PIECE), (2, 0, 3)]
)
@pytest.mark.parametrize("inner", [False, True], ids=["whole", "columns"])
def test_numbers_drawn_in_pieces_are_those_of_one_draw(shape: tuple[int, ...], inner: bool) -> None:
    """Whether they go into a tensor by itself, or into a part of the columns of another."""
    whole = torch.full((*shape[:-1], shape[-1] + 2), 7.0)
    into = whole[..., : shape[-1]] if inner else torch.empty(shape)
    draw_normal(into, 0.5, _generator())
    assert torch.equal(into, torch.randn(shape, generator=_generator()) * 0.5)
    assert bool((whole[..., shape[-1] :] == 7.0).all())


def test_draws_do_not_depend_on_the_default_dtype() -> None:
    into, again = torch.empty(50), torch.empty(50)
    draw_normal(into, 1.0, _generator())
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        draw_normal(again, 1.0, _generator())
    finally:
        torch.set_default_dtype(default)
    assert torch.equal(into, again)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_deviation_is_that_of_numpy(dtype: torch.dtype) -> None:
    for shape in ((1,), (5, 3), (PIECE + 7, 2)):
        tensor = (1000 + torch.randn(shape, generator=_generator())).to(dtype)
        assert deviation_of(tensor) == pytest.approx(float(tensor.double().numpy().std()), rel=1e-9, abs=1e-12)
    assert deviation_of(tensor.T) == pytest.approx(deviation_of(tensor), rel=1e-12)
