"""Graphs of one mode: they refuse to run in the other, whatever becomes of them, and follow the module that decides."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.graphs.mode_guard import mode_reads
from graphgrow.layers import OneMode
from graphgrow.train.grower import Grower

pytestmark = pytest.mark.filterwarnings("ignore:this graph of")


class Auxiliary(nn.Module):
    """A second answer in train mode alone, as GoogLeNet gives one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second, self.head = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        early = self.stem(x)
        answer = self.head(self.body(early).mean((2, 3)))
        return (answer, self.second(early.mean((2, 3)))) if self.training else answer


class Noisy(nn.Module):
    """Whose encoder alone goes another way in train mode, through a layer more."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.more = nn.Linear(3, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h: torch.Tensor = self.inner(x)
            return torch.as_tensor(self.more(h)) if self.training else h

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.norm, self.head = self.Encoder(), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.norm(self.encoder(x))))


X = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
MODES = pytest.mark.parametrize("mode", ["train", "eval"])


def traced(mode: str, way: str = "auto") -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(Auxiliary().train(mode == "train"), X, way=way)


def assert_guarded(module: nn.Module, mode: str) -> None:
    """It runs in its mode, refuses the other with the remedy, and runs again."""
    other = "eval" if mode == "train" else "train"
    module.train(mode == "train")(X)
    with pytest.raises(gg.ModeError, match=rf"holds for {mode} mode alone.*in {other} mode.*model\.{other}\(\)"):
        module.train(mode != "train")(X)
    module.train(mode == "train")(X)


@MODES
@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_it_refuses_the_other_mode(mode: str, way: str) -> None:
    graph = traced(mode, way)
    assert_guarded(graph.module, mode)
    assert f"valid in {mode} mode." in graph.explain()


@MODES
def test_it_survives_rewrites_copies_and_pickles(mode: str) -> None:
    graph = traced(mode)
    children = [gg.apply(graph, mutation) for mutation in graph.mutations()]
    assert len(children) > 10
    for child in children:
        assert gg.verify(graph, child).preserved
        assert_guarded(child.module, mode)
        assert [type(part) for part in child.module.modules()].count(OneMode) == 1
    for copied in (copy.deepcopy(children[0]), pickle.loads(pickle.dumps(children[0]))):
        assert_guarded(copied.module, mode)
        assert copied.text() == children[0].text()


@MODES
def test_it_survives_files(mode: str, tmp_path: Path) -> None:
    child = gg.apply(traced(mode), "widen(stem.0, extra=2)")
    gg.save(child, tmp_path / "saved")
    assert_guarded(gg.load(tmp_path / "saved", Auxiliary()).module, mode)
    record = gg.export_source(child, tmp_path / "written")
    assert any("refuses to run" in note for note in record.notes)
    scope: dict[str, Any] = {"__file__": str(tmp_path / "written" / record.path), "__name__": "written"}
    exec((tmp_path / "written" / record.path).read_text(), scope)  # the file that was written just now
    module = scope["load"]()
    assert torch.equal(module(X)[0], child.module(X)[0])
    with pytest.raises(scope["ModeError"], match=f"holds for {mode} mode alone"):
        module.train(mode != "train")(X)


def test_a_compiled_module_refuses_too() -> None:
    graph = traced("eval")
    compiled = torch.compile(graph.module, backend="eager")
    assert torch.equal(compiled(X), graph.module(X))
    graph.module.train()
    with pytest.raises(gg.ModeError, match="eval mode alone"):
        compiled(X)


def test_an_export_holds_no_check(tmp_path: Path) -> None:
    assert gg.export_onnx(traced("eval"), tmp_path / "m.onnx").max_error < 1e-5


def test_verification_notes_the_mode_that_it_leaves_out() -> None:
    for mode, other in (("eval", "train"), ("train", "eval")):
        graph = traced(mode)
        child = gg.apply(graph, "widen(stem.0, extra=2)")
        verdict = gg.verify(graph, child, modes="all")
        assert (verdict.preserved, verdict.modes[0]) == (True, mode)
        assert f"in {other} mode nothing was compared" in str(verdict)
        torch.manual_seed(0)
        model = Auxiliary().train(mode != "train")
        verdict = gg.verify(model, child)  # whatever mode the model is in
        assert (verdict.preserved, verdict.modes) == (True, (mode,))
        assert model.training is (mode != "train")


def test_graphs_of_different_modes_cannot_be_compared() -> None:
    verdict = gg.verify(traced("train"), traced("eval"))
    assert (verdict.preserved, verdict.modes) == (None, ())
    assert "one graph holds for train mode alone" in str(verdict)


@MODES
def test_it_follows_the_module_that_decides(mode: str) -> None:
    x, training = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), mode == "train"
    torch.manual_seed(0)
    model = Noisy().train(training)
    module = gg.trace(model, x).module
    module.get_submodule("norm").train(not training)  # a frozen norm, say, is nobody else's business
    wanted = copy.deepcopy(model)
    wanted.norm.train(not training)
    assert torch.equal(module(x), wanted(x))
    module.get_submodule("encoder").train(not training)
    with pytest.raises(gg.ModeError, match="`encoder` is in"):
        module(x)
    module.train(not training)
    module.get_submodule("encoder").train(training)  # the only part whose mode matters to the graph
    wanted.train(not training).encoder.train(training)
    assert torch.equal(module(x), wanted(x))


def test_a_loop_with_frozen_norms_runs_through() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Auxiliary().train(), X)
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.01)
    grower = Grower(graph, optimizer)
    for _ in range(3):
        grower.module.train()
        for part in grower.module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        with grower.observe():
            answer, early = grower.module(X)
            optimizer.zero_grad()
            (answer.square().mean() + early.square().mean()).backward()
        optimizer.step()
    assert int(torch.as_tensor(graph.module.get_buffer("stem.1.num_batches_tracked"))) == 0


def test_a_name_that_is_taken_is_left_alone() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one_mode = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
            h: torch.Tensor = self.one_mode(x)
            return [h] if self.training else h

    graph = gg.trace(Named().eval(), torch.randn(2, 3))
    assert isinstance(graph.module.get_submodule("one_mode"), nn.Linear)
    assert isinstance(graph.module.get_submodule("one_mode_"), OneMode)


def test_reads_of_the_mode_are_seen_and_leave_no_trace() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    with mode_reads(model) as found:
        assert model[1].training
        model[0].eval()
        assert not model[0].training
        assert nn.Linear(1, 1).training  # another's
    assert list(found) == ["1", "0"]
    assert "training" not in vars(nn.Module)
    assert (model.training, model[0].training) == (True, False)
