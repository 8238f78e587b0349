"""What training refuses, where the tests of its parts have no better place for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.train.averaging import follow_growth
from graphgrow.train.board import Board
from graphgrow.train.device import random_states, set_random_states
from graphgrow.train.grower import Grower
from graphgrow.train.growing import Growing
from graphgrow.train.newness import newness
from graphgrow.train.optimizers import make_optimizer
from graphgrow.train.schedule import Interval, Plateau
from graphgrow.train.snapshot import Snapshot
from graphgrow.train.start import Start


def traced(width: int = 4) -> Graph:
    torch.manual_seed(0)
    return gg.trace(nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: make_optimizer("lamb", nn.Linear(2, 2), 0.1, 0.0), "there is no optimizer 'lamb'; there are"),
        (lambda: Plateau().due([1.0, None]), r"a plateau is seen in a metric: call propose\(validation_loss\)"),
        (
            lambda: set_random_states(torch.device("cpu"), random_states(torch.device("cpu")) * 2),
            "of a training on a device of another kind",
        ),
    ],
)
def test_what_there_is_none_of(refused: Callable[[], object], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        refused()


def test_a_growing_module_stands_for_its_own_offspring_alone() -> None:
    graph = traced()
    first, other = Growing(gg.apply(graph, "widen(0, extra=1)")), Growing(gg.apply(graph, "widen(0, extra=2)"))
    with pytest.raises(TrainingError, match="the graph did not grow from the one that this module began with"):
        first.become(graph)
    with pytest.raises(TrainingError, match="of a network that did not grow from the same base"):
        first.load_state_dict(other.state_dict())


def test_rows_over_other_inputs_are_no_directions() -> None:
    graph = traced()
    entries = newness(graph, ["widen(0, extra=2)"], 0).entries
    child = gg.apply(graph, "widen(0, extra=2)")
    start = Start("directions", incoming={"0.weight": torch.randn(2, 5)})
    with pytest.raises(TrainingError, match="rows over 5 inputs do not fit the 3 that are not new"):
        start.prepare(child, entries, entries)


def test_what_is_gone_back_to_is_of_the_same_base() -> None:
    grown = gg.apply(traced(), "widen(0, extra=1)")
    plain = Snapshot.of(traced(), None).plain()
    with pytest.raises(gg.LedgerError, match="the network to go back to did not grow from this base"):
        Snapshot.from_plain(grown, plain)


def test_a_rollback_is_judged_by_a_metric() -> None:
    graph = traced()
    optimizer = torch.optim.SGD(graph.module.parameters(), 0.1)
    grower = Grower(graph, optimizer, "net2net", when=Interval(1), every=1, rollback_after=1, verify=False)
    with grower.observe():
        grower.module(torch.randn(4, 3)).square().mean().backward()
    proposal = grower.propose()
    assert proposal is not None
    grower.apply(proposal)
    with pytest.raises(TrainingError, match=r"a rollback needs a metric; call propose\(validation_loss\)"):
        grower.propose()


def test_tensorboard_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"TensorBoard is not here .*pip install 'graphgrow\[tensorboard\]'"):
        Board(tmp_path)


def test_an_average_follows_its_own_model_alone() -> None:
    graph = traced()
    grown = gg.apply(graph, "widen(0, extra=1)")
    average = AveragedModel(graph.module)
    with pytest.raises(TrainingError, match="the second graph did not grow from the first"):
        follow_growth(average, grown, graph)
    plain = AveragedModel(nn.Linear(3, 2))
    with pytest.raises(TrainingError, match=r"what is averaged cannot grow along: .*, or average grower\.module"):
        follow_growth(plain, graph, grown)
