"""Forwards that go two ways and come together again: one graph that does what the model does in each mode."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.layers import ByMode

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """Layers, and a forward that a test hands over."""

    def __init__(self, run: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(4, 3)
        self.norm, self.std = nn.BatchNorm1d(8), nn.Parameter(torch.tensor(0.3))
        self.average = nn.Buffer(torch.zeros(8))
        self.run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def _vae(m: Any, x: torch.Tensor) -> Any:
    h = F.dropout(torch.relu(m.norm(m.a(x))), 0.3, m.training)
    mean, log_variance = m.b(h), m.c(h)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if m.training else mean
    return m.d(z), mean, log_variance


def _vae_in_place(m: Any, x: torch.Tensor) -> Any:
    h = torch.relu(m.a(x))
    mean, log_variance = m.b(h), m.c(h)
    if m.training:
        std = torch.exp(0.5 * log_variance)
        mean = torch.randn_like(std).mul(std).add_(mean)
    return m.d(mean)


def _dropout_by_hand(m: Any, x: torch.Tensor) -> Any:
    h = torch.relu(m.a(x))
    if m.training:
        h = h * (torch.rand_like(h) > 0.5).to(h.dtype) / 0.5
    return m.d(m.b(h))


def _learned_noise(m: Any, x: torch.Tensor) -> Any:
    h = m.a(x)
    return m.d(m.b(h + torch.randn_like(h) * m.std if m.training else h))


def _probabilities(m: Any, x: torch.Tensor) -> Any:
    h = m.d(m.b(torch.relu(m.a(x))))
    return {"answer": h if m.training else F.softmax(h, -1), "hidden": h}


def _other_activation(m: Any, x: torch.Tensor) -> Any:
    h = m.norm(m.a(x))
    return m.d(m.b(torch.relu(h) if m.training else F.gelu(h)))


def _statistics(m: Any, x: torch.Tensor) -> Any:
    h = m.a(x)
    if m.training:
        m.average.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
    return m.d(m.b(h + m.average))


WAYS = [_statistics, _vae, _vae_in_place, _dropout_by_hand, _learned_noise, _probabilities, _other_activation]


def outcome(module: nn.Module, x: torch.Tensor) -> list[Any]:
    """Its answers from the same random state."""
    torch.manual_seed(3)
    return pytree.tree_leaves(module(x))


def assert_same(module: nn.Module, model: nn.Module) -> None:
    module, model = copy.deepcopy(module), copy.deepcopy(model)
    for training in (True, False, True):
        for x in (X, X[:2]):
            assert all(map(torch.equal, outcome(module.train(training), x), outcome(model.train(training), x)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("run", WAYS)
def test_it_does_what_the_model_does_in_each_mode(run: Any, training: bool) -> None:
    model = Model(run).train(training)
    graph = gg.trace(model, X, way="fx")
    assert graph.modes == {"train", "eval"}
    assert "goes another way in train mode than in eval mode" in graph.explain()
    assert any(isinstance(part, ByMode) for part in graph.module.modules())
    assert_same(graph.module, model)
    assert_same(pickle.loads(pickle.dumps(graph)).module, model)


@pytest.mark.parametrize("run", WAYS)
def test_every_listed_mutation_is_preserved_in_both(run: Any) -> None:
    graph = gg.trace(Model(run), X, way="fx")
    found = list(graph.mutations())
    assert len(found) > 7
    for mutation in found:
        child = gg.apply(graph, mutation)
        verdict = gg.verify(graph, child)
        assert verdict.preserved, (str(mutation), str(verdict))
        assert verdict.modes == tuple(m for m in ("eval", "train") if m in child.steps[-1].exact_in)


def test_what_both_ways_read_grows_together() -> None:
    graph = gg.trace(Model(_other_activation), X)
    child = gg.apply(graph, "widen(a, extra=3)")
    assert child.module.get_submodule("b").in_features == 11
    verdict = gg.verify(graph, child, modes="all")
    assert (verdict.preserved, verdict.modes[:2]) == (True, ("eval", "train"))
    assert graph.group("a").frozen is None


def test_it_is_saved_exported_and_written(tmp_path: Path) -> None:
    model = Model(_vae)
    child = gg.apply(gg.trace(model, X), "widen(a, extra=3)")
    gg.save(child, tmp_path / "saved")
    again = gg.load(tmp_path / "saved", model)
    assert_same(again.module, child.module)
    assert gg.export_onnx(child, tmp_path / "m.onnx").max_error < 1e-5
    assert "ByMode()" in (tmp_path / "written" / gg.export_source(child, tmp_path / "written").path).read_text()


def test_a_mode_of_a_part_reaches_what_picks_there() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = Model(_other_activation), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.outer(self.inner(x)))

    model = Whole().eval()
    module = gg.trace(model, X).module
    module.get_submodule("inner").train()
    model.inner.train()
    assert torch.equal(module(X), model(X))


def _layer(m: Any, x: torch.Tensor) -> Any:
    h = torch.relu(m.a(x))
    return m.d(m.b(h) + m.c(h)) if m.training else m.d(m.b(h))


def _more(m: Any, x: torch.Tensor) -> Any:
    h = m.d(m.b(m.a(x)))
    return (h, h.exp()) if m.training else h


def _overwritten(m: Any, x: torch.Tensor) -> Any:
    h = m.a(x)
    if m.training:
        h.add_(torch.randn_like(h))
    return m.d(m.b(h))


def _numbers(m: Any, x: torch.Tensor) -> Any:
    return m.d(m.b(m.a(x)) * torch.tensor([1.0, 2.0, 3.0, 4.0] if m.training else [4.0, 3.0, 2.0, 1.0]))


@pytest.mark.filterwarnings("ignore:this graph of")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("run", [_layer, _more, _overwritten, _numbers])
def test_layers_and_outputs_of_another_form_stay_with_one_mode(run: Any, training: bool) -> None:
    model = Model(run).train(training)
    graph = gg.trace(model, X, way="fx")
    assert graph.modes == {"train" if training else "eval"}
    twin = copy.deepcopy(model)
    for _ in range(2):
        assert all(map(torch.equal, outcome(graph.module, X), outcome(twin, X)))
    with pytest.raises(gg.ModeError):
        graph.module.train(not training)(X)
