"""A signal that is stopped between two batches and goes on elsewhere ends where one that was not stopped does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.errors import SignalError
from graphgrow.graph import Graph
from graphgrow.models import ResNet
from graphgrow.signals.activity import ActivitySignal
from graphgrow.signals.gradients import GradientSignal
from graphgrow.signals.gradmax import GradMaxSignal
from graphgrow.signals.memory import memory_of, remember
from graphgrow.signals.skips import SkipSignal
from graphgrow.signals.watch import Signal, Watch
from graphgrow.train.packing import pack, unpack


def traced() -> Graph:
    torch.manual_seed(0)
    return gg.trace(ResNet(widths=(3, 4), blocks=(1, 1)), torch.randn(2, 3, 8, 8))


def skips(graph: Graph) -> Signal:
    return SkipSignal(graph, [(m.site_name, str(vars(m)["target"])) for m in graph.mutations("add-skip")])


def see(graph: Graph, signal: Signal, batch: int) -> None:
    draw = torch.Generator().manual_seed(batch)
    images, labels = torch.randn(8, 3, 8, 8, generator=draw), torch.randint(10, (8,), generator=draw)
    with Watch(graph.module, [signal]):
        F.cross_entropy(graph.module(images), labels).backward()


def flat(results: Any) -> list[Any]:
    items = results.values() if isinstance(results, dict) else results
    return pytree.tree_leaves([list(vars(item).values()) for item in items])


@pytest.mark.parametrize("make", [ActivitySignal, GradientSignal, GradMaxSignal, skips])
def test_it_goes_on_as_if_it_had_not_been_stopped(make: Callable[[Graph], Any]) -> None:
    graph = traced()
    whole, stopped, resumed = make(graph), make(graph), make(graph)
    graph.module.eval()
    for batch in range(4):
        see(graph, whole, batch)
    for batch in range(2):
        see(graph, stopped, batch)
    kept = unpack(*pack(memory_of(stopped)))
    remember(resumed, kept)
    for batch in range(2, 4):
        see(graph, resumed, batch)
    for mine, theirs in zip(flat(resumed.results()), flat(whole.results()), strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


def test_a_memory_of_another_signal_is_refused() -> None:
    graph = traced()
    with pytest.raises(SignalError, match="a memory of other signals"):
        remember(GradientSignal(graph), memory_of(ActivitySignal(graph)))
