"""Numbers that are all alike, against what every entry says."""

from __future__ import annotations

import pytest
import torch

from graphgrow.rewrite.zeros import FEW, holds_only, live_rows, rows_at

NAN = float("nan")


@pytest.mark.parametrize(
    ("entries", "number", "expected"),
    [
        ([0.0, 0.0], 0.0, True),
        ([0.0, -0.0], 0.0, True),
        ([1e-45, 0.0], 0.0, False),
        ([0.0, 1.0], 0.0, False),
        ([0.0, NAN], 0.0, False),
        ([NAN, 0.0], 0.0, False),
        ([-1.0, -1.0], -1.0, True),
        ([-1.0, -1.0 + 2**-24], -1.0, False),
        ([], 0.0, True),
    ],
)
def test_holds_only(entries: list[float], number: float, expected: bool) -> None:
    tensor = torch.tensor(entries, dtype=torch.float64)
    assert holds_only(tensor, number) is expected
    assert holds_only(torch.stack([tensor, tensor]), number) is expected
    assert holds_only(torch.stack([tensor, tensor], 1), number) is expected


def test_holds_only_of_a_number() -> None:
    assert holds_only(torch.tensor(0.0), 0.0)
    assert not holds_only(torch.tensor(2.0 + 1j), 0.0)


@pytest.mark.parametrize("width", [0, 1, FEW, FEW + 1, 3 * FEW])
def test_live_rows_are_those_with_any_entry(width: int) -> None:
    rows = torch.zeros(6, width)
    places = [(1, 0), (3, width - 1), (4, width // 2)] if width else []
    for row, column in places:
        rows[row, column] = NAN if row == 4 else 1e-40
    expected = torch.tensor([any(float(entry) != 0 for entry in row) for row in rows])
    assert torch.equal(live_rows(rows), expected)
    assert bool(expected.any()) is bool(width)


def test_rows_at_an_axis() -> None:
    tensor = torch.arange(24.0).reshape(2, 3, 4)
    for axis in range(3):
        for i, row in enumerate(rows_at(tensor, axis)):
            assert torch.equal(row, tensor.select(axis, i).flatten())
