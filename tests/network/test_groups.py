"""Channel groups: their names, members, readers, and how they are found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from tests.rewrite.small_models import EXPECTED, Forward


def _named(label: str) -> Graph:
    expected = next(expected for expected in EXPECTED if expected.label == label)
    return gg.trace(expected.build(), torch.randn(expected.shape))


def test_a_residual_stream_is_one_group_with_all_its_writers_and_readers() -> None:
    stream = _named("residual-norms").group("first")
    assert stream.size == 4
    assert stream.members == ("first", "pos", "norm1", "b", "norm2")
    assert stream.readers == ("a", "last")
    assert stream.frozen is None
    assert str(stream) == "first [4] written by 5, read by 2"


def test_groups_come_in_the_order_of_their_first_producers() -> None:
    graph = _named("residual-norms")
    assert [group.name for group in graph.groups] == ["first", "pos", "a", "last"]


def test_any_member_names_its_group() -> None:
    graph = _named("residual-norms")
    assert graph.group("b") is graph.group("first")
    assert graph.group("norm2") is graph.group("first")


def test_factors_of_an_axis_carry_a_suffix() -> None:
    graph = _named("attention")
    names = {group.name: group.size for group in graph.groups if group.frozen is None}
    assert names == {"qkv:heads": 2, "qkv:head_width": 4, "qkv:value_width": 4}
    with pytest.raises(gg.MutationError, match="`qkv` writes several channel groups: qkv:heads"):
        graph.group("qkv")


def test_frozen_groups_say_why() -> None:
    graph = _named("softmax")
    group = graph.group("first")
    assert group.frozen is not None
    assert str(group) == "first [4] written by 1, frozen: a softmax over it (at `mid.0`)"
    assert graph.group("last").frozen is not None


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(gg.MutationError, match="there is no channel group `fist`; did you mean 'first'"):
        _named("relu").group("fist")
    with pytest.raises(gg.MutationError, match=r"there is no channel group `zzz`; see graph.groups"):
        _named("relu").group("zzz")


def test_names_stay_the_same_when_the_graph_grows() -> None:
    for label in ("residual-norms", "attention", "grouped", "gate", "cat"):
        graph = _named(label)
        names = [group.name for group in graph.groups]
        for mutation in [*graph.mutations("widen"), *graph.mutations("split")]:
            grown = gg.apply(graph, mutation)
            assert [group.name for group in grown.groups] == names
        for mutation in graph.mutations("deepen"):
            grown = gg.apply(graph, mutation)
            assert set(names) <= {group.name for group in grown.groups}


def test_a_module_called_twice_is_one_group() -> None:
    net = Forward(lambda m, x: m.last(m.same(torch.relu(m.same(x)))), same=nn.Linear(3, 3), last=nn.Linear(3, 2))
    graph = gg.trace(net, torch.randn(2, 3))
    group = graph.group("same")
    assert group.frozen is not None, "its input is the model's"
    inner = Forward(
        lambda m, x: m.last(m.same(torch.relu(m.same(m.first(x))))),
        first=nn.Linear(3, 4), same=nn.Linear(4, 4), last=nn.Linear(4, 2),
    )  # fmt: skip
    graph = gg.trace(inner, torch.randn(2, 3))
    assert graph.group("same") is graph.group("first")
    assert graph.group("first").members == ("first", "same")


def test_a_table_that_is_written_and_read_as_one_has_no_group_of_its_width() -> None:
    """Its new columns would multiply themselves: nothing but zero is exact, and zeros would never learn."""
    graph = _named("tied-embedding")
    assert [(group.size, group.members) for group in graph.groups] == [(3, ("embed", "head"))]
