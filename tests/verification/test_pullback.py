"""Gradients of what growth left alone agree entry by entry, and the lift pulls the others back to the parent's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.properties.blocks import Steady, TiedPair
from tests.properties.written import noise, stirred

MODES = ("eval", "train", "gradients")


class Net(nn.Module):
    """A residual block with norm between two maps, over two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.mix = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 8)
        self.out, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.stem(x) + y
        return self.head(x + self.out(torch.tanh(self.mix(self.norm(x)))))


def traced() -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(Net(), (torch.randn(4, 5), torch.randn(4, 6)))


@pytest.mark.parametrize("text", ["widen(mix, extra=2)", "split(mix)", "deepen(mix, kind=mlp)"])
def test_right_rewrites_have_the_same_gradients(text: str) -> None:
    graph = traced()
    verdict = gg.verify(graph, gg.apply(graph, text), modes=MODES)
    assert verdict.preserved is True, verdict
    checks = [check for check in verdict.checks if check.mode == "gradients"]
    assert [check.what for check in checks][:3] == [
        "parameters as they were, eval",
        "inputs, eval",
        "pulled back, eval",
    ]
    assert all(check.count for check in checks)


def test_growth_that_fills_with_means_is_pulled_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    graph = gg.trace(model, torch.randn(4, 5))
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=2)"), modes=MODES)
    assert verdict.preserved is True, verdict
    assert not any("no linear map" in note for note in verdict.notes)


def test_a_value_that_is_cut_off_from_its_gradient_is_flagged() -> None:
    """The outputs are the same to the bit in both modes; only the gradients tell."""
    graph = traced()
    grown = gg.apply(graph, "widen(mix, extra=2)")
    node = grown.sites.find("mix")
    with grown.module.graph.inserting_before(node):
        cut = grown.module.graph.call_method("detach", (node.args[0],))
    node.replace_input_with(node.all_input_nodes[0], cut)
    grown.module.recompile()
    assert gg.verify(graph, grown, modes=("eval", "train")).preserved is True
    verdict = gg.verify(graph, grown, modes=MODES)
    assert verdict.preserved is False
    failed = {check.what for check in verdict.checks if not check.passed}
    assert {"parameters as they were, eval", "pulled back, train"} <= failed


def test_a_gradient_that_a_touched_tensor_loses_is_flagged_by_name() -> None:
    graph = traced()
    grown = gg.apply(graph, "split(mix)")
    node = grown.sites.find("mix")
    reader = next(iter(node.users))
    with grown.module.graph.inserting_after(node):
        cut = grown.module.graph.call_method("detach", (node,))
    reader.replace_input_with(node, cut)
    grown.module.recompile()
    verdict = gg.verify(graph, grown, modes=MODES)
    pulled = next(check for check in verdict.checks if check.what == "pulled back, eval")
    assert not pulled.passed
    assert pulled.where in {"mix.weight", "mix.bias", "stem.weight", "stem.bias", "norm.weight"}


def test_a_gradient_that_cancels_out_is_rounded_as_its_terms_are() -> None:
    """A norm over two features is a sign: what passes it is 1e-17 of what comes to it, and rounding of no less."""
    layers = [
        nn.Linear(3, 2),
        nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 3), Steady("log"), nn.RMSNorm(3, eps=1e-3), nn.Linear(3, 2)),
        nn.BatchNorm1d(2), TiedPair(2), nn.Linear(2, 2),
    ]  # fmt: skip
    graph = gg.trace(stirred(nn.Sequential(*layers), 91), noise((6, 3), 0))
    verdict = gg.verify(graph, gg.apply(graph, "split(0)", seed=3), modes=("eval", "gradients"), batch_sizes=())
    assert verdict.preserved is True, verdict
