"""Starts of new units: those that claim to preserve the function do, the others say by how much they do not."""

from __future__ import annotations

import pytest
import torch

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.train.newness import newness
from graphgrow.train.start import Start
from tests.train import small

MUTATIONS = ["widen(0, extra=3)"]


def _started(start: Start) -> tuple[torch.Tensor, gg.Graph, float | None]:
    graph = small.graph()
    child = gg.apply(graph, MUTATIONS, share=False)
    gap = start.apply(graph, child, newness(graph, MUTATIONS, 0).entries, torch.Generator().manual_seed(0))
    difference = (child.module(small.INPUTS) - graph.module(small.INPUTS)).detach()
    return difference, child, gap


@pytest.mark.parametrize("kind", ["fresh", "variance", "directions"])
def test_what_claims_to_preserve_does(kind: str) -> None:
    rows = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    difference, child, gap = _started(Start(kind, incoming={"0.weight": rows}))
    assert gap is None
    assert float(difference.abs().max()) < 1e-6
    weight = child.module.get_parameter("0.weight").detach()
    if kind == "variance":
        assert float(weight[6:].square().mean()) == pytest.approx(float(weight[:6].square().mean()), rel=1e-5)
    if kind == "directions":
        assert torch.allclose(torch.nn.functional.normalize(weight[6:], dim=1), rows, atol=1e-6)


@pytest.mark.parametrize("kind", ["he", "noise"])
def test_what_does_not_preserve_measures_its_gap(kind: str) -> None:
    difference, _, gap = _started(Start(kind, size=0.1))
    assert float(difference.abs().max()) > 1e-3
    assert gap is not None
    assert 1e-3 < gap < 3


def test_an_unknown_start_is_named() -> None:
    with pytest.raises(TrainingError, match="no start 'zero'; there are fresh, variance, directions, he, noise"):
        Start("zero")
