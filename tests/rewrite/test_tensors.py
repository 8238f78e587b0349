"""Shares, fresh entries, and the growth of one parameter along several axes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.ir.flow import Fill, Level
from graphgrow.ir.positions import Units
from graphgrow.ir.terms import Concat, Product, Space
from graphgrow.ir.value import Fresh, Value
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.tensors import TensorGrowth
from tests.effort import examples

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _doubled(space: Space, copies: int = 2) -> Units:
    return Units(space, torch.arange(space.size).repeat(copies))


def _shared(weights: torch.Tensor, copies: int = 2, seed: int = 0) -> torch.Tensor:
    """The weights (units,) shared among copies; shape (copies, units)."""
    space = Space(len(weights))
    growth = TensorGrowth.of(Value((space,), "w", True), _doubled(space, copies), {0: (Fill.SHARE,)}, {0})
    return growth.grow(weights, _generator(seed)).reshape(copies, -1)


def _step(dtype: torch.dtype) -> float:
    """The distance between denormal numbers."""
    return float(torch.finfo(dtype).smallest_normal) * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@examples(40)
@given(data=st.data())
def test_two_shares_add_up_to_the_bit(dtype: torch.dtype, data: st.DataObject) -> None:
    """Any finite bit pattern, denormals and both zeros included."""
    width = torch.finfo(dtype).bits
    patterns = st.lists(st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1), min_size=1, max_size=50)
    weights = torch.tensor(data.draw(patterns), dtype=BITS[dtype]).view(dtype)
    weights = weights[weights.isfinite()]
    if not len(weights):
        return
    first, second = _shared(weights, seed=data.draw(st.integers(0, 99)))
    assert torch.equal(first + second, weights)
    assert bool((first.abs() <= weights.abs()).all())
    assert bool((second.abs() <= weights.abs() / 2 + _step(dtype)).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_shares_of_every_finite_half_add_up_to_the_bit(dtype: torch.dtype) -> None:
    weights = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    weights = weights[weights.isfinite()]
    for seed in range(3):
        first, second = _shared(weights, seed=seed)
        assert torch.equal(first + second, weights)
        assert bool((first.abs() <= weights.abs()).all())
        assert bool((second.abs() <= weights.abs() / 2 + _step(dtype)).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_shares_lie_between_a_half_and_the_whole_and_differ(dtype: torch.dtype) -> None:
    """A share below 1/2 would not be exact; equal halves would never part under training."""
    weights = torch.linspace(1, 3, 400, dtype=torch.float64).to(dtype)
    first, second = _shared(weights)
    ratio = first.double() / weights.double()
    assert float(ratio.min()) >= 0.5
    assert float(ratio.max()) <= 1.0
    assert 0.7 < float(ratio.mean()) < 0.8
    assert float((first - second).abs().double().mean()) > 0.1


@pytest.mark.parametrize("copies", [3, 5])
def test_several_shares_add_up_within_rounding(copies: int) -> None:
    weights = torch.randn(200, generator=_generator(), dtype=torch.float64)
    shares = _shared(weights, copies)
    assert float((shares.sum(0) - weights).abs().max()) <= copies * 2.0**-53 * float(weights.abs().max())


def test_each_weight_has_a_share_of_its_own() -> None:
    """Elementwise shares break the symmetry along every other axis too."""
    rows, columns = Space(3), Space(4)
    growth = TensorGrowth.of(Value((rows, columns), "w", True), _doubled(columns), {1: (Fill.SHARE,)}, {1})
    whole = torch.ones(3, 4, dtype=torch.float64)
    grown = growth.grow(whole, _generator())
    assert torch.equal(grown[:, :4] + grown[:, 4:], whole)
    assert len(set(grown[:, :4].flatten().tolist())) == 12


@examples(20)
@given(data=st.data())
def test_only_the_occurrence_that_is_asked_for_is_shared(data: st.DataObject) -> None:
    """An axis x ++ y ++ x: one occurrence is shared, the other copied, and y is left alone."""
    size, other = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    space, between = Space(size), Space(other)
    shared = data.draw(st.integers(0, 1))
    fills = tuple(Fill.SHARE if i == shared else Fill.COPY for i in range(2))
    term = Concat((space, between, space))
    growth = TensorGrowth.of(Value((term,), "w", True), _doubled(space), {0: fills}, {0})
    whole = torch.randn(2 * size + other, generator=_generator(), dtype=torch.float64)
    grown = growth.grow(whole, _generator())
    parts = grown[: 2 * size], grown[2 * size : 2 * size + other], grown[2 * size + other :]
    before = whole[:size], whole[size : size + other], whole[size + other :]
    assert torch.equal(parts[1], before[1])
    for occurrence, (now, then) in enumerate(((parts[0], before[0]), (parts[2], before[2]))):
        first, second = now.chunk(2)
        if occurrence == shared:
            assert torch.equal(first + second, then)
            assert not torch.equal(first, then)
        else:
            assert torch.equal(first, then)
            assert torch.equal(second, then)


def test_shares_within_groups_are_those_of_their_own_unit() -> None:
    """An axis (group x width): each copy shares the weight of its unit in its own group."""
    group, width = Space(2), Space(3)
    growth = TensorGrowth.of(
        Value((Product((group, width)),), "w", True), Units(width, torch.tensor([0, 1, 2, 1])), {0: (Fill.SHARE,)}, {0}
    )
    whole = torch.arange(1.0, 7.0, dtype=torch.float64)
    grown = growth.grow(whole, _generator()).reshape(2, 4)
    assert torch.equal(grown[:, [0, 2]], whole.reshape(2, 3)[:, [0, 2]])
    assert torch.equal(grown[:, 1] + grown[:, 3], whole.reshape(2, 3)[:, 1])


def _appended(fill: Fill, fresh: Fresh, old: torch.Tensor, extra: int = 2) -> torch.Tensor:
    space = Space(len(old))
    terms = (space, *map(Space, old.shape[1:]))
    value = Value(terms, "w", True, fresh=fresh, fan=(1,) if old.dim() > 1 else ())
    units = Units(space, torch.cat([torch.arange(len(old)), torch.zeros(extra, dtype=torch.int64)]))
    return TensorGrowth.of(value, units, {0: (fill,)}, set()).grow(old, _generator())


def test_appended_entries_hold_what_their_fill_says() -> None:
    old = torch.randn(6, 5, generator=_generator(), dtype=torch.float64)
    for fill in (Fill.FREE, Fill.ZERO, Fill.MEAN):
        assert torch.equal(_appended(fill, Fresh.HE, old)[:6], old)
    assert torch.equal(_appended(Fill.ZERO, Fresh.HE, old)[6:], torch.zeros(2, 5, dtype=torch.float64))
    assert torch.equal(_appended(Fill.MEAN, Fresh.HE, old)[6:], old.mean(0, keepdim=True).expand(2, 5))
    assert torch.equal(_appended(Fill.FREE, Fresh.ONES, old)[6:], torch.ones(2, 5, dtype=torch.float64))
    assert torch.equal(_appended(Fill.FREE, Fresh.ZEROS, old)[6:], torch.zeros(2, 5, dtype=torch.float64))


def test_fresh_entries_have_the_deviation_that_is_wanted() -> None:
    old = 0.1 * torch.randn(50, 400, generator=_generator())
    he, like = (_appended(Fill.FREE, fresh, old, 50)[50:].std() for fresh in (Fresh.HE, Fresh.LIKE))
    assert float(he) == pytest.approx(math.sqrt(2 / 400), rel=0.05)
    assert float(like) == pytest.approx(0.1, rel=0.05)


def test_fresh_entries_are_those_of_the_seed_in_every_dtype() -> None:
    old = torch.zeros(4, 3, dtype=torch.float64)
    double = _appended(Fill.FREE, Fresh.HE, old)
    for dtype in DTYPES:
        assert torch.equal(_appended(Fill.FREE, Fresh.HE, old.to(dtype)), double.to(dtype))


def test_one_number_everywhere_goes_on_and_zeros_stay_zeros() -> None:
    for number in (1.5, 0.0):
        old = torch.full((6, 1), number)
        assert torch.equal(_appended(Fill.FREE, Fresh.LIKE, old), torch.full((8, 1), number))


def test_a_level_is_the_mean_along_all_of_its_axes() -> None:
    rows, *inner = (Space(size) for size in (3, 4, 2, 1))
    value = Value((rows, *inner), "w", True)
    old = torch.randn(3, 4, 2, 1, generator=_generator(), dtype=torch.float64)
    units = Units(inner[0], torch.tensor([0, 1, 2, 3, 0]))
    new = TensorGrowth.of(value, units, {1: (Level.over(tuple(inner)),)}, set()).grow(old, _generator())
    assert torch.equal(new[:, 4:], old.mean((1, 2, 3), keepdim=True).expand(3, 1, 2, 1))


def test_complex_entries_are_shared_drawn_and_averaged_by_their_parts() -> None:
    old = torch.complex(*(0.1 * torch.randn(2, 50, 400, generator=_generator())))
    first, second = _shared(old[:, 0])
    assert torch.equal(first + second, old[:, 0])
    assert bool(((first / old[:, 0]).real < 1).all())
    fresh = torch.view_as_real(_appended(Fill.FREE, Fresh.LIKE, old, 50)[50:])
    assert [float(part.std()) for part in fresh.unbind(-1)] == pytest.approx([0.1, 0.1], rel=0.05)
    means = _appended(Fill.MEAN, Fresh.LIKE, old)[50:]
    assert torch.equal(means, old.to(torch.complex128).mean(0, keepdim=True).expand(2, 400).to(old.dtype))


def test_a_square_weight_grows_along_both_axes() -> None:
    """New rows are the mean of the old ones over the new columns too; new columns are read with zero."""
    space = Space(3)
    value = Value((space, space), "w", True, fresh=Fresh.HE, fan=(1,))
    units = Units(space, torch.tensor([0, 1, 2, 0]))
    old = torch.randn(3, 3, generator=_generator(), dtype=torch.float64)
    grown = TensorGrowth.of(value, units, {0: (Fill.MEAN,), 1: (Fill.ZERO,)}, {1}).grow(old, _generator())
    assert torch.equal(grown[:3, :3], old)
    assert torch.equal(grown[:, 3], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(grown[3, :3], old.mean(0))


def test_growth_writes_into_nothing() -> None:
    old = torch.randn(4, generator=_generator())
    before = old.clone()
    for fill in (Fill.FREE, Fill.ZERO, Fill.MEAN):
        _appended(fill, Fresh.LIKE, old)
    _shared(old)
    assert torch.equal(old, before)


def test_a_scale_is_applied_to_everything() -> None:
    space = Space(3)
    growth = TensorGrowth.of(
        Value((space,), "w", True, fresh=Fresh.ONES), Units(space, torch.tensor([0, 1, 2, 0])), {0: (Fill.FREE,)}, set()
    )
    assert growth.grow(torch.tensor([1.0, 2.0, 3.0]), _generator()).tolist() == [1.0, 2.0, 3.0, 1.0]
    growth.scale = 0.5
    grown = growth.grow(torch.tensor([1.0, 2.0, 3.0]), _generator())
    assert grown[:3].tolist() == [0.5, 1.0, 1.5]
    assert 0 < abs(float(grown[3]) - 0.5) < 0.2
    state = growth.carry(torch.tensor([1.0, 2.0, 3.0]), Role.SQUARE)
    assert state.tolist() == [4.0, 8.0, 12.0, 8.0], "the gradient of a weight scaled by c is scaled by 1/c"


def test_what_is_added_to_a_tensor_is_scaled_with_it() -> None:
    space = Space(2)
    growth = TensorGrowth.of(
        Value((space,), "w", True, fresh=Fresh.ZEROS), Units(space, torch.tensor([0, 1, 2])), {0: (Fill.FREE,)}, set()
    )
    growth.scale, growth.offset = 0.5, 1.0
    grown = growth.grow(torch.tensor([1.0, 3.0]), _generator())
    assert grown[:2].tolist() == [0.0, 1.0]
    assert 0 < abs(float(grown[2]) + 0.5) < 0.2


def test_gains_of_a_rescaled_norm_are_apart() -> None:
    """Their units are alike, at the mean; nothing else may ever part them."""
    space = Space(2)
    for fresh, old in ((Fresh.ONES, [1.0, 3.0]), (Fresh.LIKE, [2.0, 2.0])):
        value = Value((space,), "w", True, fresh=fresh)
        growth = TensorGrowth.of(value, Units(space, torch.tensor([0, 1, 2, 3])), {0: (Fill.FREE,)}, set())
        growth.scale = 0.5
        first, second = growth.grow(torch.tensor(old), _generator())[2:].tolist()
        assert first != second
