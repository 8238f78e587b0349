"""The planted mistake: on the smallest inputs where it shows there, and how often a network is run for a verdict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.verification import planted, sensitivity
from graphgrow.verification.case import Case
from graphgrow.verification.numbers import Numbers
from graphgrow.verification.probes import Inputs


class Net(nn.Module):
    """A linear map behind tanh; or one whose answer is cut off where inputs are large."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.first, self.last, self.limit = nn.Linear(6, 8), nn.Linear(8, 3), limit
        nn.init.constant_(self.last.bias, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.last(self.first(x).tanh()) * (1 + x.abs().sum())).clamp(-self.limit, self.limit)


def _grown(limit: float = 1e9, batch: int = 5) -> tuple[gg.Graph, gg.Graph]:
    torch.manual_seed(0)
    graph = gg.trace(Net(limit), torch.randn(batch, 6))
    return graph, gg.apply(graph, "widen(first, extra=2)")


def _batches_planted(monkeypatch: pytest.MonkeyPatch, graph: gg.Graph, grown: gg.Graph) -> tuple[gg.Verdict, list[int]]:
    seen: list[int] = []
    tried = sensitivity.weights_that_matter

    def watched(module: fx.GraphModule, probe: Inputs, *rest: Any) -> Any:
        seen.append(len(probe[0][0]))
        return tried(module, probe, *rest)

    monkeypatch.setattr(planted, "weights_that_matter", watched)
    return gg.verify(graph, grown), seen


def test_a_mistake_is_planted_on_the_smallest_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, batches = _batches_planted(monkeypatch, *_grown())
    assert verdict.preserved is True
    assert batches == [1]


def test_where_the_smallest_inputs_hide_it_the_example_s_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of inputs 16 times as large, which a batch of one has, the answers are all at the limit."""
    graph, grown = _grown(limit=40.0)
    verdict, batches = _batches_planted(monkeypatch, graph, grown)
    assert batches == [1, 5]
    assert verdict.preserved is True, verdict
    assert any("was seen" in note for note in verdict.notes)
    assert not any("refilled" in note for note in verdict.notes)


@pytest.mark.parametrize("changed", ["first.weight", "last.weight"])
def test_a_mistake_that_the_child_holds_is_seen(changed: str) -> None:
    graph, grown = _grown()
    with torch.no_grad():
        grown.module.get_parameter(changed)[0, 0] *= 1 + 1e-6
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is False
    assert any(check.what == "outputs, float64" and not check.passed for check in verdict.checks)


def test_the_parent_is_run_in_float64_once_for_each_probe_and_on_the_smallest_for_its_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph, grown = _grown(batch=7)
    samples = {"parent": 0, "child": 0}
    made = Case.runner

    def watched(self: Case, module: fx.GraphModule, probe: Inputs, mode: str, numbers: Numbers | None = None) -> Any:
        if (numbers or self.wide).dtype is torch.float64:
            samples["parent" if module is self.parent.module else "child"] += len(probe[0][0])
        return made(self, module, probe, mode, numbers)

    monkeypatch.setattr(Case, "runner", watched)
    assert gg.verify(graph, grown, sizes=()).preserved is True
    assert samples == {"parent": 7 + 1 + 3 + 1, "child": 7 + 1 + 3 + 1}  # the noise; the mistake
