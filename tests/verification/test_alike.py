"""What both graphs compute alike is run once; everything else is run, and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.verification.case import Case
from graphgrow.verification.probes import Probes
from graphgrow.verification.runner import Runner
from graphgrow.verification.squares import run_pair
from graphgrow.verification.worst import Worst
from tests.rewrite.small_models import Forward

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def model(inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    members = {"a": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), "act": nn.ReLU(inplace), "b": nn.Conv2d(4, 4, 3),
               "act2": nn.ReLU(inplace), "c": nn.Conv2d(4, 4, 1), "d": nn.Conv2d(4, 2, 1)}  # fmt: skip
    return Forward(lambda m, x: m.d(m.c(m.act2(m.b(m.act(m.bn(m.a(x))))))), **members)


def case_of(graph: gg.Graph, child: gg.Graph, mode: str) -> tuple[Case, Any]:
    probes = Probes(graph.inputs, None, 0, ())
    return Case.of(graph, child, child.ledger.entries, (mode,), probes), probes.drawn(mode, torch.float64)[0]


def run_in_child(monkeypatch: pytest.MonkeyPatch, graph: gg.Graph, child: gg.Graph, mode: str = "eval") -> set[str]:
    """The operators that are run for the child; what comes out must be what it computes by itself."""
    case, probe = case_of(graph, child, mode)
    run: set[str] = set()
    original = Runner.run

    def noted(self: Runner, node: Any) -> Any:
        if self.module is case.child.module and node.op.startswith("call"):
            run.add(str(node.target))
        return original(self, node)

    with torch.no_grad():
        alone = case.runner(case.child.module, probe, mode)
        wanted, buffers = alone.finish(), alone.buffers()
        monkeypatch.setattr(Runner, "run", noted)
        first, second = (case.runner(side.module, probe, mode) for side in (case.parent, case.child))
        worst = Worst()
        _, found = run_pair(first, second, case.counterparts, worst)
        monkeypatch.undo()
    assert worst.passed
    assert torch.equal(found, wanted)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in second.buffers().items())
    return run


Change = Callable[[gg.Graph], gg.Graph]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_only_what_follows_a_change_is_run(monkeypatch: pytest.MonkeyPatch, inplace: bool, mode: str) -> None:
    graph = gg.trace(model(inplace), IMAGES)
    found = run_in_child(monkeypatch, graph, gg.apply(graph, "widen(c, extra=3)"), mode)
    again = {"act", "act2"} if inplace else set()  # they overwrite memory, each its own
    again |= {"bn"} if mode == "train" else set()  # it counts statistics
    assert found == {"c", "d"} | again


def test_what_comes_to_the_same_bits_is_the_parents_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gg.trace(model(), IMAGES)
    enlarged = run_in_child(monkeypatch, graph, gg.apply(graph, "enlarge-kernel(a, to=5)"))
    assert enlarged == {"a"}
    gated = run_in_child(monkeypatch, graph, gg.apply(graph, "add-skip(b, target=c)"))
    assert not gated & {"a", "bn", "act", "b", "act2", "c", "d"}


def applied_again(
    monkeypatch: pytest.MonkeyPatch, graph: gg.Graph, child: gg.Graph, mode: str
) -> tuple[set[str], Worst]:
    """The parent's operators that are applied to what arrives in the child, and what came of all comparisons."""
    case, probe = case_of(graph, child, mode)
    applied: set[str] = set()
    original = Runner.apply

    def noted(self: Runner, node: Any, args: Any, kwargs: Any) -> Any:
        applied.add(str(node.target))
        return original(self, node, args, kwargs)

    worst = Worst()
    with torch.no_grad(), monkeypatch.context() as patched:
        patched.setattr(Runner, "apply", noted)
        first, second = (case.runner(side.module, probe, mode) for side in (case.parent, case.child))
        run_pair(first, second, case.counterparts, worst)
    return applied, worst


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_behind_a_change_the_childs_own_operator_is_the_square(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """What arrives at c and d is off in its last bits; they are the parent's layers, and are applied to it once."""
    graph = gg.trace(model(), IMAGES)
    child = gg.apply(graph, "split(a, units=[0, 2])", seed=1)
    applied, worst = applied_again(monkeypatch, graph, child, mode)
    assert worst.passed
    assert worst.count == 7  # each operator is counted as compared
    assert not applied  # b, which has other weights, reads what a, bn and act of the parent gave it
    assert not torch.equal(graph.module.eval()(IMAGES), child.module.eval()(IMAGES))


@pytest.mark.parametrize("edit", ["weight", "attribute"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("change", ["widen(c, extra=3)", "split(a, units=[0, 2])"])
def test_a_wrong_layer_is_seen(edit: str, inplace: bool, change: str) -> None:
    graph = gg.trace(model(inplace), IMAGES)
    child = gg.apply(graph, change, share=False)
    layer = child.module.get_submodule("b" if edit == "weight" else "bn")
    with torch.no_grad():
        if edit == "weight":
            layer.get_parameter("weight")[1, 2, 0, 0] *= 1 + 1e-6
        else:
            setattr(layer, "eps", 1.001e-5)  # noqa: B010  # a plain assignment is typed as a tensor's
    assert gg.verify(graph, child).preserved is False


def test_a_zero_of_another_sign_is_another_number() -> None:
    """The child adds zero to a negative zero in front of a reciprocal: infinity of the other sign."""
    torch.manual_seed(0)
    members = {"a": nn.Linear(3, 4), "s": nn.Sigmoid(), "b": nn.Linear(4, 4), "n": nn.Hardtanh(-5.0, 5.0)}
    model = Forward(lambda m, x: 1 / m.n(-m.b(m.s(m.a(x))).relu()), **members)
    graph = gg.trace(model, torch.randn(2, 3))
    child = gg.apply(graph, "add-skip(s, target=n)")
    case, probe = case_of(graph, child, "eval")
    with torch.no_grad():
        first, second = (case.runner(side.module, probe, "eval") for side in (case.parent, case.child))
        mine, theirs = run_pair(first, second, case.counterparts, Worst())
        assert mine.min() == -torch.inf
        assert theirs.max() == torch.inf
        assert torch.equal(mine, case.runner(case.parent.module, probe, "eval").finish())
        assert torch.equal(theirs, case.runner(case.child.module, probe, "eval").finish())
