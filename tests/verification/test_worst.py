"""Bounds that NaN cannot slip through, and the element that came nearest to its own."""

from __future__ import annotations

import pytest
import torch

from graphgrow.verification.worst import Worst, errors, largest


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_comparison_is_safe_from_nan(bad: float) -> None:
    worst = Worst()
    worst.see(torch.tensor([0.0, bad]), torch.tensor([1.0, 1.0]), "here")
    assert not worst.passed
    assert (worst.where, worst.element) == ("here", (1,))
    worst.see(torch.tensor([0.5]), torch.tensor([1.0]), "there")
    assert not worst.passed
    assert worst.first_failure == "here"


def test_the_element_nearest_to_its_bound_is_remembered() -> None:
    worst = Worst()
    worst.see(torch.tensor([[0.1, 0.2], [0.3, 0.1]]), torch.tensor([[1.0, 0.25], [1.0, 1.0]]), "first")
    worst.see(torch.zeros(3), torch.zeros(3), "second")
    check = worst.check("eval", "numbers", "as wanted")
    assert (check.where, check.element, check.count, check.passed) == ("first", (0, 1), 2, True)
    assert "first[0, 1]" in str(check)
    assert "as wanted" in str(check)


@pytest.mark.parametrize("limit", [float("nan"), 0.0])
def test_a_limit_that_is_no_number_admits_nothing(limit: float) -> None:
    worst = Worst()
    worst.see(*errors(torch.ones(2), torch.tensor([1.0, 1.0 + 1e-6]), torch.tensor(limit)), "here")
    assert not worst.passed


def test_equal_infinities_and_equal_nans_agree() -> None:
    values = torch.tensor([float("inf"), float("-inf"), float("nan"), 1.0])
    error, _ = errors(values, values.clone(), torch.tensor(0.0))
    assert not bool(error.any())
    swapped, _ = errors(values, values.flip(0), torch.tensor(0.0))
    assert not bool((swapped <= 1e30).any())


def test_the_largest_magnitude_counts_no_infinity_and_no_nan() -> None:
    assert float(largest(torch.tensor([-3.0, 2.0]))) == 3.0
    assert float(largest(torch.tensor([-3.0, float("inf"), float("nan")]))) == 3.0
    assert float(largest(torch.zeros(0))) == 0.0


def test_nothing_compared_says_nothing() -> None:
    worst = Worst()
    worst.see(torch.zeros(0), torch.zeros(0), "here")
    assert (worst.passed, worst.count) == (True, 0)
