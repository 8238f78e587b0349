"""Where the units of an ancestor lie, and which node carries a value on, over several steps."""

from __future__ import annotations

import itertools

import pytest
import torch

from graphgrow.ir.positions import Recurring, positions_along
from graphgrow.network.network import Step
from graphgrow.verification.places import Counterparts, compose, lost, project, tensor_places


def at(*positions: int) -> dict[int, torch.Tensor]:
    """Along axis 1, where the old units went."""
    return {1: torch.tensor(positions)}


def found(places: object, name: str) -> list[int]:
    assert isinstance(places, dict)
    return list(places[name][1].tolist())


def test_a_carrier_may_be_carried_on_itself() -> None:
    """s, then a block x behind it, then y behind x, then z behind s again: s is carried by what x leads to."""
    steps = [
        Step(moved={"s": "x"}, created=frozenset({"x"})),
        Step(moved={"x": "y"}, created=frozenset({"y", "inside"})),
        Step(moved={"s": "z"}, created=frozenset({"z"})),
    ]
    whole, later = Counterparts.of(steps), Counterparts.of(steps[1:])
    assert whole.moved == {"s": "y"}
    assert whole.carrier("s") == "y"
    assert whole.carrier("t") == "t"
    assert whole.carried_by("y") == {"s"}
    assert whole.carried_by("z") == set()
    assert later.moved == {"x": "y", "s": "z"}
    assert whole.created == {"x", "y", "z", "inside"}


def test_a_carrier_grows_by_itself() -> None:
    """The site grows from 2 to 4 units before the block comes; then block and site grow apart."""
    steps = [
        Step(nodes={"s": at(0, 2), "t": at(1, 3)}),
        Step(moved={"s": "x"}, created=frozenset({"x"})),
        Step(nodes={"x": at(1, 2, 3, 4)}),
        Step(nodes={"s": at(0, 1, 2, 5), "t": at(0, 1, 2, 4)}),
        Step(moved={"x": "y"}),
        Step(nodes={"x": at(0, 1, 2, 3, 4), "y": at(5, 4, 3, 2, 1)}),
    ]
    both = Counterparts.of(steps)
    assert found(both.places, "s") == [0, 2]
    assert found(both.arriving, "s") == [4, 2]  # 0, 2 -> x: 1, 3 -> y: 4, 2
    assert found(both.places, "t") == found(both.arriving, "t") == [1, 4]


def test_a_step_that_moves_nothing_arrives_where_it_is() -> None:
    both = Counterparts.of([Step(nodes={"s": at(2, 0)}), Step(nodes={"s": at(1, 3, 5)})])
    assert found(both.places, "s") == found(both.arriving, "s") == [5, 1]
    value = torch.arange(12.0).reshape(2, 6)
    assert project(value, both.arriving["s"]).tolist() == [[5.0, 1.0], [11.0, 7.0]]
    assert project(value, None) is value


def test_units_that_are_gone_stay_gone_and_are_taken_from_the_old_tensor() -> None:
    """Grown by one unit, then units 1 and 3 (the new one) dropped: 0, 2 of the first are 0, 1 of the last."""
    steps = [Step(nodes={"s": at(0, 1, 2)}), Step(nodes={"s": at(0, -1, 1, -1)})]
    places = Counterparts.of(steps).places["s"]
    assert places[1].tolist() == [0, -1, 1]
    now, own = torch.tensor([[5.0, 6.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    assert project(now, places).tolist() == [[5.0, 0.0, 6.0]]
    assert project(now, places, own).tolist() == [[5.0, 2.0, 6.0]]
    gone = lost(places, own)
    assert gone is not None
    assert gone.tolist() == [[False, True, False]]
    assert lost({0: torch.tensor([1, 0])}, own) is None


def test_a_name_may_live_twice() -> None:
    """A node grows and is erased; a block that comes later has one of that name and another size."""
    steps = [
        Step(moved={"s": "x"}, created=frozenset({"x", "inside"})),
        Step(nodes={"x": at(0, 2), "s": at(0, 2), "inside": at(0, 1, 2, 4)}),
        Step(moved={"x": "s"}),
        Step(moved={"s": "x"}, created=frozenset({"x", "inside"})),
        Step(nodes={"x": at(1, 2, 4), "inside": at(0, 1)}),
    ]
    both = Counterparts.of(steps)
    assert set(both.places) == {"s"}
    assert found(both.places, "s") == [0, 2]
    assert found(both.arriving, "s") == [1, 4]
    tensors = [Step(tensors={"x.weight": at(0, 1, 3)}), Step(tensors={"x.weight": at(1, 2), "s.weight": at(2, 1)})]
    assert tensor_places(tensors, {"s.weight"}).keys() == {"s.weight"}


@pytest.mark.parametrize("parts", list(itertools.product((True, False), repeat=2)), ids=str)
def test_factors_that_are_frozen_in_one_step_alone_compose(parts: tuple[bool, bool]) -> None:
    """Three periods of two units, which become four and then five, the second of them gone."""
    first, second = torch.tensor([2, 0]), torch.tensor([1, -1, 3, 4])
    steps = (Recurring(first, 4), Recurring(second, 5))
    sizes = (12, 15)
    given = [step if part else step.along(size) for step, part, size in zip(steps, parts, sizes, strict=True)]
    (kept,) = (axes[1] for axes in compose([{"a": {1: step}} for step in given]).values())
    expected = [3, 1, 8, 6, 13, 11]
    assert positions_along(kept, 15).tolist() == expected


def test_periods_of_two_lengths_compose() -> None:
    """Six positions as three periods of two that grow to three, then as one period of nine of which three are gone."""
    first, second = Recurring(torch.tensor([0, 2]), 3), Recurring(torch.tensor([0, 1, 2, -1, -1, -1, 3, 4, 5]), 6)
    (kept,) = (axes[1] for axes in compose([{"a": {1: first}}, {"a": {1: second}}]).values())
    assert positions_along(kept, 12).tolist() == [0, 2, -1, -1, 3, 5, 6, 8, -1, -1, 9, 11]
