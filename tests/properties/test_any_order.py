"""Growing, training, saving, loading, replaying, cleaning and going back, in any order."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.graph import Graph
from tests.effort import BASE, examples
from tests.preserved import assert_preserved, assert_same_bits
from tests.properties.models import models
from tests.properties.written import Model

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=1e-3),
    "radam": lambda parameters: torch.optim.RAdam(parameters, lr=1e-3),
    "adamax": lambda parameters: torch.optim.Adamax(parameters, lr=1e-3),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=1e-3),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3, momentum=0.9, centered=True),
}
LARGE = 10_000  # parameters above which nothing grows any more
SITES = 12  # of a pass that are looked at


class AnyOrder(RuleBasedStateMachine):
    """One graph, its optimizer, and the graphs that it was grown from since it was last trained."""

    def __init__(self) -> None:
        super().__init__()
        self.earlier: list[tuple[Graph, Any]] = []
        self.seed = 0

    @initialize(model=models(), kind=st.sampled_from(sorted(OPTIMIZERS)))
    def begins(self, model: Model, kind: str) -> None:
        self.base, self.kind = copy.deepcopy(model.module), kind
        self.inputs = model.inputs
        self._goes_on(gg.trace(*model))

    def _goes_on(self, graph: Graph) -> None:
        self.graph, self.optimizer = graph, OPTIMIZERS[self.kind](graph.module.parameters())

    @rule(data=st.data())
    def grows(self, data: st.DataObject) -> None:
        """Any mutation of any pass; the optimizer follows, and the parent still answers what it did."""
        if self.graph.parameter_count > LARGE:
            return
        offered = self.graph.mutations(data.draw(st.sampled_from(gg.pass_names())))
        chosen = data.draw(st.integers(0, SITES - 1))
        found = [mutation for _, mutation in zip(range(chosen + 1), offered, strict=False)]
        if not found:
            return
        before = _answer(self.graph)
        self.seed += 1
        child = gg.apply(self.graph, found[-1], seed=self.seed, optimizer=self.optimizer)
        assert_preserved(self.graph, child, self.seed)
        assert _same(_answer(self.graph), before)
        self.earlier.append((self.graph, before))
        self.graph = child

    @rule()
    def trains(self) -> None:
        """One step on its own inputs: what has a gradient moves, and nothing stops being finite."""
        module, (args, kwargs) = self.graph.module, self.graph.inputs.sample(self.seed)
        before = [parameter.detach().clone() for parameter in module.parameters()]
        module.train("train" in self.graph.modes)
        self.optimizer.zero_grad()
        sum(leaf.square().mean() for leaf in pytree.tree_leaves(module(*args, **kwargs))).backward()
        moving = [p.grad is not None and float(p.grad.abs().max()) > 1e-6 for p in module.parameters()]
        self.optimizer.step()
        module.eval()
        for old, new, moves in zip(before, module.parameters(), moving, strict=True):
            assert bool(torch.isfinite(new).all())
            assert not moves or not torch.equal(old, new)
        self.earlier.clear()  # they share their parameters with what was trained

    @precondition(lambda self: self.earlier)
    @rule()
    def goes_back(self) -> None:
        """An earlier graph answers what it answered then, to the bit."""
        graph, answered = self.earlier.pop()
        assert _same(_answer(graph), answered)
        self._goes_on(graph)

    @rule()
    def cleans_up(self) -> None:
        """The answer stays, and what is left has no more parameters."""
        if self.graph.parameter_count > LARGE:
            return
        cleaned = gg.clean(self.graph, optimizer=self.optimizer)
        assert cleaned.parameter_count <= self.graph.parameter_count
        for first, second in zip(_answer(self.graph), _answer(cleaned), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
        assert gg.clean(cleaned) is cleaned
        self.earlier.clear()
        self.graph = cleaned

    @rule()
    def is_saved_and_loaded(self) -> None:
        """The same bits, ledger and text; and it goes on from there."""
        with tempfile.TemporaryDirectory() as folder:
            gg.save(self.graph, Path(folder) / "saved")
            again = gg.load(Path(folder) / "saved", copy.deepcopy(self.base))
        assert_same_bits(again.module, self.graph.module)
        assert (again.ledger, again.text()) == (self.graph.ledger, self.graph.text())
        assert _same(_answer(again), _answer(self.graph))
        self.earlier.clear()
        self._goes_on(again)

    @rule()
    def is_replayed(self) -> None:
        """The structure, whatever was trained in between."""
        ledger = gg.Ledger.from_json(self.graph.ledger.to_json())
        again = gg.replay(copy.deepcopy(self.base), self.inputs, ledger)
        assert again.text() == self.graph.text()
        assert _shapes(again) == _shapes(self.graph)

    @precondition(lambda self: settings().max_examples > BASE)
    @rule()
    def is_exported(self) -> None:
        """In float32, as its ledger and its numbers say, with parity."""
        narrow = gg.trace(copy.deepcopy(self.graph.module).float(), *_float(self.graph.inputs.sample()))
        with tempfile.TemporaryDirectory() as folder:
            gg.export_onnx(narrow, Path(folder) / "model.onnx")

    @invariant()
    def the_optimizer_has_every_parameter_once(self) -> None:
        if not hasattr(self, "graph"):
            return
        held = [id(p) for group in self.optimizer.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in self.graph.module.parameters())
        for parameter, state in self.optimizer.state.items():
            for value in state.values():
                assert not isinstance(value, torch.Tensor) or value.shape in (parameter.shape, torch.Size())


def _answer(graph: Graph) -> list[Any]:
    args, kwargs = graph.inputs.sample(11)
    with torch.no_grad():
        return pytree.tree_leaves(graph.module.eval()(*args, **kwargs))


def _same(first: list[Any], second: list[Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _shapes(graph: Graph) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in graph.module.state_dict().items()}


def _float(tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, tree)


AnyOrder.TestCase.settings = settings(examples(6), stateful_step_count=8)
TestAnyOrder = pytest.mark.filterwarnings("ignore")(AnyOrder.TestCase)
