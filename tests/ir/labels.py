"""Ground truth for axis terms: axes that carry, at each position, the coordinates in the spaces that make it up."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphgrow.ir.terms import Concat, Product, Space, Term, normal

Coordinates = tuple[tuple[int, int], ...]  # (number of the space, unit) for each space that a position lies in


def positions(term: Term, spaces: dict[Space, int]) -> list[Coordinates]:
    """The coordinates of each position of an axis, by really laying the axis out.

    Spaces are numbered in `spaces` as they are met.
    """
    term = normal(term)
    if isinstance(term, Space):
        number = spaces.setdefault(term, len(spaces))
        return [((number, unit),) for unit in range(term.size)]
    if isinstance(term, Concat):
        return [place for part in term.parts for place in positions(part, spaces)]
    grid = np.empty([factor.size for factor in term.factors], dtype=object)
    factors = [positions(factor, spaces) for factor in term.factors]
    for index in np.ndindex(grid.shape):
        grid[index] = sum((factors[i][j] for i, j in enumerate(index)), ())
    return list(grid.reshape(-1))


@st.composite
def terms(draw: Any, spaces: list[Space], depth: int = 2) -> Term:
    """A random term over given spaces, which may occur more than once in it."""
    kind = draw(st.sampled_from(["space", "product", "concat"])) if depth else "space"
    if kind == "space":
        return draw(st.sampled_from(spaces))
    inner = st.lists(terms(spaces, depth - 1), min_size=2, max_size=3 if kind == "concat" else 2)
    children = tuple(draw(inner))
    return Product(children) if kind == "product" else Concat(children)


def space_lists(low: int = 1, high: int = 4, count: int = 3) -> st.SearchStrategy[list[Space]]:
    """Some spaces of small sizes."""
    return st.lists(st.integers(low, high).map(Space), min_size=1, max_size=count)
