"""Streamed histograms against torch.histogram, and entropies against cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.errors import SignalError
from graphgrow.signals.histogram import UnitHistograms
from tests.effort import examples


def _streamed(*batches: torch.Tensor, bins: int = 16) -> UnitHistograms:
    histograms = UnitHistograms(batches[0].shape[1], bins)
    for batch in batches:
        histograms.update(batch)
    return histograms


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(-50, 50), st.floats(0, 60)), min_size=1, max_size=6))
@examples(40)
def test_counts_are_those_of_torch_over_the_final_range(batches: list[tuple[int, float, float]]) -> None:
    generator = torch.Generator().manual_seed(len(batches))
    data = [
        torch.randn(count, 3, generator=generator, dtype=torch.float64) * spread + shift
        for count, shift, spread in batches
    ]
    found = _streamed(*data)
    whole = torch.cat(data)
    assert found.samples == len(whole)
    assert torch.equal(found.counts.sum(1), torch.full((3,), len(whole)))
    for unit in range(3):
        edges = found.edges[unit].double()
        assert edges[0] <= whole[:, unit].min() + 1e-9
        assert edges[-1] >= whole[:, unit].max() - 1e-9
        # how many lie below each edge: exact but for samples within rounding of it
        below = (whole[:, unit, None] < edges[None, 1:-1]).sum(0)
        near = ((whole[:, unit, None] - edges[None, 1:-1]).abs() <= 1e-6 * (edges[-1] - edges[0])).sum(0)
        mine = found.counts[unit].cumsum(0)[:-1]
        assert bool(((mine - below).abs() <= near).all())


def test_one_batch_is_torch_histogram() -> None:
    rows = torch.randn(500, 4, dtype=torch.float64)
    found = _streamed(rows, bins=32)
    for unit in range(4):
        expected, edges = torch.histogram(rows[:, unit], 32)
        assert torch.equal(found.counts[unit].double(), expected)
        assert torch.allclose(found.edges[unit].double(), edges)


@pytest.mark.parametrize("shift", [0.0, -30.0, 1e6])
def test_ranges_near_zero_and_far_from_it_are_counted_alike(shift: float) -> None:
    """In float32: where the range is far from zero, a unit's place is taken from its low end."""
    rows = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * 64
    rows = (rows.floor() + 0.5 + shift).float()
    found = _streamed(rows, bins=64)
    for unit in range(2):
        expected = torch.histogram(rows[:, unit].double() - rows[:, unit].min().double(), 64)[0]
        assert torch.equal(found.counts[unit].double(), expected)


def test_a_batch_of_several_blocks_and_a_rest_is_counted_whole() -> None:
    rows = torch.randn(150, 500, dtype=torch.float64)  # a block has 65 rows of them
    found = _streamed(rows, rows[:70], bins=8)
    for unit in (0, 1, 250, 499):
        expected = torch.histogram(torch.cat([rows, rows[:70]])[:, unit], 8)[0]
        assert torch.equal(found.counts[unit].double(), expected)


def test_a_range_doubles_no_more_than_it_has_to() -> None:
    found = _streamed(torch.tensor([[0.0], [1.0]]), torch.tensor([[-2.5]]), torch.tensor([[5.0]]))
    low, high = float(found.edges[0, 0]), float(found.edges[0, -1])
    assert low <= -2.5
    assert high >= 5.0
    assert high - low <= 2 * 7.5 * 2  # each side at most doubles what it needs


def test_a_unit_that_wakes_up_late_is_spread_out_again() -> None:
    """A range of 2^-60 around zero has to grow to 1: sixty doublings in one step."""
    found = _streamed(torch.zeros(10, 1), torch.linspace(0, 1, 33)[:, None], bins=32)
    counts = found.counts[0]
    assert int(counts.sum()) == 43
    assert int(counts[0]) >= 10
    assert int((counts > 0).sum()) > 16


def test_entropy_by_hand() -> None:
    """A unit that is 0 or 1 with equal odds, over 4 bins: ln 2 + 1 / (2 n), over ln 4."""
    n = 100
    coin = torch.cat([torch.zeros(n // 2, 1), torch.ones(n // 2, 1)])
    even = torch.arange(4.0).repeat(n // 4)[:, None]
    still = torch.full((n, 1), 3.0)
    found = _streamed(torch.cat([coin, even, still], 1), bins=4)
    expected = [(math.log(2) + 1 / (2 * n)) / math.log(4), 1.0, 0.0]
    assert found.entropy().tolist() == pytest.approx(expected)
    assert found.constant().tolist() == [False, False, True]
    assert found.saturation().tolist() == pytest.approx([1.0, 0.5, 1.0])


def test_the_correction_takes_most_of_the_bias_away() -> None:
    """200 samples of odds 1/1 : 1/2 : ... : 1/16: the plug-in estimate is some 15 / 400 nats too low."""
    odds = 1 / torch.arange(1, 17, dtype=torch.float64)
    odds /= odds.sum()
    truth = -float(torch.special.xlogy(odds, odds).sum()) / math.log(16)
    drawn = torch.multinomial(odds.expand(400, 16), 198, replacement=True, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([torch.tensor([[0.0], [15.0]]).expand(2, 400), drawn.T.float()])
    found = _streamed(rows)
    shares = found.counts / found.samples
    plugin = -torch.special.xlogy(shares, shares).sum(1) / math.log(16)
    assert truth - float(plugin.mean()) > 0.008
    assert abs(truth - float(found.entropy().mean())) < 0.002


def test_what_is_not_finite_is_refused_and_changes_nothing() -> None:
    found = _streamed(torch.randn(8, 2))
    before = found.counts
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(SignalError, match="NaN or infinity"):
            found.update(torch.tensor([[0.0, bad]]))
    assert torch.equal(found.counts, before)
    with pytest.raises(SignalError, match="even"):
        UnitHistograms(2, bins=7)
