"""Decisions by whether a batch has one sample: left out of the graph where they part nothing, kept where they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.rewrite.small_models import Forward


def _expanded(m: Any, x: torch.Tensor) -> torch.Tensor:
    """One row of places for all samples, made as many as there are samples."""
    places = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    if x.shape[0] != places.shape[0]:
        places = places.expand(x.shape[0], -1)
    result: torch.Tensor = m.last(m.first(x) + m.table(places))
    return result


def _scaled(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A batch of one is treated otherwise."""
    result: torch.Tensor = m.last(m.first(x) if x.shape[0] != 1 else 2 * m.first(x))
    return result


def _odd(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A batch of one is no case of its own here: it is one of the odd ones, of which others are treated otherwise."""
    y = m.first(x)
    if x.shape[0] % 2 != 0:
        y = y + (x.shape[0] - 1)
    result: torch.Tensor = m.last(y)
    return result


def _model(run: Any) -> nn.Module:
    torch.manual_seed(0)
    return Forward(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2), table=nn.Embedding(16, 4))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_what_broadcasting_does_as_well_is_no_decision(batch: int) -> None:
    model = _model(_expanded)
    graph = gg.trace(model, torch.randn(batch, 5, 3), way="fx")
    child = gg.apply(graph, "widen(first, extra=2)")
    for rows in (1, 2, 5):
        x = torch.randn(rows, 5, 3)
        torch.testing.assert_close(graph.module(x), model(x))
        torch.testing.assert_close(child.module(x), model(x))


@pytest.mark.parametrize(("batch", "other"), [(1, 3), (3, 1)])
def test_what_is_another_function_is_refused(batch: int, other: int) -> None:
    graph = gg.trace(_model(_scaled), torch.randn(batch, 5, 3), way="fx")
    with pytest.raises(ValueError, match="decides by the sizes"):
        graph.module(torch.randn(other, 5, 3))


def test_a_decision_that_others_than_a_batch_of_one_share_is_kept() -> None:
    """At one sample the graph for even batches agrees; at three it would not."""
    model = _model(_odd)
    graph = gg.trace(model, torch.randn(2, 5, 3), way="fx")
    x = torch.randn(4, 5, 3)
    assert torch.equal(graph.module(x), model(x))
    with pytest.raises(ValueError, match="decides by the sizes"):
        graph.module(torch.randn(3, 5, 3))


def _by_length(m: Any, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Neither number is the batch: that one of them is one in the example says nothing."""
    x, memory = pair
    y = m.first(x)
    result: torch.Tensor = m.last(y if memory.shape[1] != x.shape[1] else y + m.first(memory))
    return result


def _by_both(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The number that the batch is compared with is one in the example alone."""
    y = m.first(x)
    result: torch.Tensor = m.last(y if x.shape[0] != x.shape[1] else y.sum(1, keepdim=True).expand_as(y))
    return result


def test_a_number_that_is_one_in_the_example_alone_is_still_asked_for() -> None:
    graph = gg.trace(_model(_by_length), ((torch.randn(2, 5, 3), torch.randn(2, 1, 3)),), way="fx")
    with pytest.raises(ValueError, match="decides by the sizes"):
        graph.module((torch.randn(2, 5, 3), torch.randn(2, 5, 3)))
    graph = gg.trace(_model(_by_both), torch.randn(2, 1, 3), way="fx")
    with pytest.raises(ValueError, match="decides by the sizes"):
        graph.module(torch.randn(4, 4, 3))
