"""Shrinking a parameter: the inverse of growing it, for entries and for optimizer state."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.ir.positions import Removal, shrinkage
from graphgrow.ir.terms import Concat, Product, Space
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.shrink import TensorShrinkage
from tests.effort import examples

NONE = torch.tensor([], dtype=torch.int64)


@examples(20)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), data=st.data())
def test_units_of_a_product_are_those_of_the_reshaped_tensor(sizes: list[int], data: st.DataObject) -> None:
    """Dropping units of one factor of (a b c) is dropping slices of the tensor seen as a x b x c."""
    spaces = [Space(size) for size in sizes]
    which = data.draw(st.integers(0, len(sizes) - 1))
    gone = data.draw(st.sets(st.integers(0, sizes[which] - 1), max_size=sizes[which] - 1))
    removal = Removal.dropping(spaces[which], sorted(gone))
    shrunk = shrinkage(Product(tuple(spaces)), removal)
    values = torch.arange(Product(tuple(spaces)).size, dtype=torch.float64)
    new = TensorShrinkage({0: shrunk}, {0: NONE}).shrink(values)
    kept = [unit for unit in range(sizes[which]) if unit not in gone]
    assert torch.equal(new, values.reshape(sizes).index_select(which, torch.tensor(kept)).flatten())
    assert removal.new_size == len(kept)
    assert removal.gone.tolist() == sorted(gone)


def test_a_concatenation_shrinks_in_each_of_its_parts() -> None:
    space, other = Space(3), Space(2)
    removal = Removal.dropping(space, [1])
    shrunk = shrinkage(Concat((space, other, space)), removal)
    assert shrunk.heirs.tolist() == [0, -1, 1, 2, 3, 4, -1, 5]
    assert shrunk.first.tolist() == [0, 2, 3, 4, 5, 7]
    assert shrunk.occurrence.tolist() == [0, 0, 0, -1, -1, 1, 1, 1]


def test_merged_shares_add_up_last_first() -> None:
    """Three shares of 0.1 in float32: only the order that split made them in gives its bits back."""
    whole = torch.tensor(0.1)
    first = whole * 0.7
    third = first * 0.6
    shares = torch.stack([third, whole - first, first - third])  # the first share was taken apart again
    space = Space(3)
    shrunk = shrinkage(space, Removal.merging(space, {1: 0, 2: 0}))
    merged = TensorShrinkage({0: shrunk}, {0: torch.tensor([1, 2])}).shrink(shares)
    assert torch.equal(merged, whole.reshape(1))


def test_state_of_copies_is_gathered_and_that_of_shares_kept() -> None:
    """A copy read with share a has a m and a^2 v; what reads copies has m and v for each share."""
    space = Space(2)
    shrunk = shrinkage(space, Removal.merging(space, {1: 0}))
    written = TensorShrinkage({0: shrunk}, {0: NONE})
    assert torch.allclose(written.carry(torch.tensor([0.25, 0.75]) * 3.0, Role.MOMENT), torch.tensor([3.0]))
    assert torch.allclose(written.carry(torch.tensor([0.25, 0.75]) ** 2 * 5.0, Role.SQUARE), torch.tensor([5.0]))
    read = TensorShrinkage({0: shrunk}, {0: torch.tensor([1])})
    assert torch.equal(read.carry(torch.tensor([3.0, 3.0]), Role.MOMENT), torch.tensor([3.0]))
    assert torch.equal(TensorShrinkage({}, {}, 2.0).carry(torch.tensor([8.0]), Role.SQUARE), torch.tensor([2.0]))
