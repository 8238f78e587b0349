"""Lines along an axis, and their means, against loops over the parts."""

from __future__ import annotations

import pytest
import torch

from graphgrow.ir.terms import Concat, Product, Space, Term
from graphgrow.rewrite.lines import line_means, lines_along

UNITS, HEADS, OTHER = Space(3), Space(2), Space(4)
TERMS: list[tuple[Term, list[int]]] = [
    (UNITS, [0, 0, 0]),
    (Product((HEADS, UNITS)), [0, 0, 0, 3, 3, 3]),
    (Product((UNITS, HEADS)), [0, 1, 0, 1, 0, 1]),
    (Concat((UNITS, OTHER, UNITS)), [0, 0, 0, 3, 4, 5, 6, 7, 7, 7]),
    (OTHER, [0, 1, 2, 3]),
]


@pytest.mark.parametrize(("term", "expected"), TERMS)
def test_a_line_is_named_after_its_first_place(term: Term, expected: list[int]) -> None:
    assert lines_along(term, UNITS).tolist() == expected


@pytest.mark.parametrize("term", [term for term, _ in TERMS])
@pytest.mark.parametrize("axis", [0, 1])
def test_means_are_those_of_the_places_that_count(term: Term, axis: int) -> None:
    torch.manual_seed(0)
    lines = lines_along(term, UNITS)
    size = len(lines)
    tensor = torch.randn((size, 2) if axis == 0 else (2, size))
    kept = torch.ones(size, dtype=torch.bool)
    if term is not OTHER:
        kept[1] = False  # a place of a line that has others
    wanted = torch.nonzero(kept).flatten()
    found = line_means(tensor, axis, lines, kept, wanted)
    assert found.dtype == torch.float64
    rows = tensor.double() if axis == 0 else tensor.double().t()
    means = [rows[(lines == lines[at]) & kept].mean(0) for at in wanted]
    expected = torch.stack(means).expand(len(wanted), 2)
    torch.testing.assert_close((found if axis == 0 else found.t()).expand(len(wanted), 2), expected)
