"""Nested outputs of every kind are compared: floats within a limit, all else exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphgrow.verification.outputs import compare_buffers, compare_outputs, widened
from graphgrow.verification.worst import Worst

ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        (ONES, ONES * (1 + 2e-7), True),
        (ONES, ONES * (1 + 2e-5), False),
        (ONES, torch.tensor([1, 1, torch.nan]), False),
        (torch.tensor([1, torch.nan]), torch.tensor([1, torch.nan]), True),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
        (torch.tensor([True]), torch.tensor([False]), False),
        (ONES, ONES.double(), False),
        (ONES, torch.ones(1), False),
        (ONES * 1j, ONES * (1 + 2e-7) * 1j, True),
        (ONES * 1j, ONES * (1j + 2e-5), False),
        ({"a": ONES}, {"b": ONES}, False),
        ([ONES, 3], [ONES, 3], True),
        ([ONES, 3], [ONES, 4], False),
    ],
)
def test_what_differs_is_seen(before: Any, after: Any, passed: bool) -> None:
    worst = Worst()
    compare_outputs(before, after, before, worst, 32.0, 1e-6)
    assert worst.passed is passed


def test_the_noise_widens_the_limit() -> None:
    worst = Worst()
    compare_outputs(ONES, ONES + 3e-4, ONES + 1e-5, worst, 32.0, 1e-6)
    assert worst.passed
    compare_outputs(ONES, ONES + 4e-4, ONES + 1e-5, worst, 32.0, 1e-6)
    assert not worst.passed


def test_places_may_differ_where_noise_changes_them_and_nowhere_else() -> None:
    """The order of random numbers, drawn in another dtype, is another: ViT-MAE's was called wrong."""
    order, noise = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 2, 3])
    for after, passed in (([1, 0, 2, 3], True), ([1, 2, 0, 3], False)):
        worst = Worst()
        compare_outputs(order, torch.tensor(after), noise, worst, 32.0, 1e-6)
        assert worst.passed is passed


@pytest.mark.parametrize(
    ("after", "passed"),
    [
        ({"mean": ONES, "none": torch.zeros(0)}, True),
        ({"mean": ONES * (1 + 2e-5), "none": torch.zeros(0)}, False),
        ({"none": torch.zeros(0)}, True),  # a clean-up took its module away
        ({"mean": torch.ones(4), "none": torch.zeros(0)}, False),
    ],
)
def test_buffers_are_compared_where_both_have_them(after: dict[str, torch.Tensor], passed: bool) -> None:
    worst, before = Worst(), {"mean": ONES, "none": torch.zeros(0)}
    compare_buffers(before, after, lambda: before, {}, worst, 32.0, 1e-6)
    assert worst.passed is passed


def test_noise_of_whole_numbers_stays_what_it_was() -> None:
    counts = torch.tensor([1, 2])
    found = widened([ONES, counts], [ONES, counts], [ONES, counts], [ONES + 1e-3, counts])
    assert torch.allclose(found[0], ONES + 1e-3)
    assert found[1] is counts
