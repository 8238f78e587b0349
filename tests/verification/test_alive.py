"""New weights that can never learn, and copies that can never part, are flagged though the function is preserved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg

MODES = ("eval", "alive")


def traced(norm: bool = False) -> gg.Graph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6) if norm else nn.Identity(), nn.GELU(), nn.Linear(6, 3))
    return gg.trace(model, torch.randn(4, 5))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("text", ["widen(0, extra=2)", "split(0)", "deepen(2)"])
def test_right_rewrites_are_alive(text: str, norm: bool) -> None:
    graph = traced(norm)
    verdict = gg.verify(graph, gg.apply(graph, text), modes=MODES)
    assert verdict.preserved is True, verdict
    assert sum(check.mode == "alive" for check in verdict.checks) == 2


def test_new_units_with_zeros_on_both_sides_are_flagged() -> None:
    graph = traced()
    grown = gg.apply(graph, "widen(0, extra=2)", share=False)
    with torch.no_grad():
        grown.module.get_parameter("0.weight")[6:] = 0
    assert gg.verify(graph, grown, modes="eval").preserved is True
    verdict = gg.verify(graph, grown, modes=MODES)
    assert verdict.preserved is False
    assert [(check.mode, check.where) for check in verdict.checks if not check.passed] == [("alive", "0.weight")]


def test_equal_halves_are_flagged() -> None:
    graph = traced()
    grown = gg.apply(graph, "split(0)", share=False)
    with torch.no_grad():
        weight = grown.module.get_parameter("3.weight")
        half = graph.module.get_parameter("3.weight") / 2
        weight[:, :6], weight[:, 6:] = half, half
    verdict = gg.verify(graph, grown, modes=MODES)
    assert [(check.what, check.where) for check in verdict.checks if not check.passed] == [
        ("copies part within 5 steps", "0.weight")
    ]


def test_parameters_that_require_no_gradient_are_left_out() -> None:
    graph = traced()
    for parameter in graph.module.parameters():
        parameter.requires_grad_(False)
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=2)"), modes=MODES)
    assert "alive: nothing new requires a gradient" in verdict.notes
