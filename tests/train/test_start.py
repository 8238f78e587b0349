"""Starts of new units: those that claim to preserve the function do, the others say by how much they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.train.grower import Grower
from graphgrow.train.newness import drawn_entries, newness
from graphgrow.train.policies.gradmax import GradMax
from graphgrow.train.schedule import Interval
from graphgrow.train.start import Start, distance, output_of
from tests.train import small

MUTATIONS = ["widen(0, extra=3)"]


def _started(start: Start) -> tuple[torch.Tensor, gg.Graph, float | None]:
    graph = small.graph()
    child = gg.apply(graph, MUTATIONS, share=False)
    new = newness(graph, MUTATIONS, 0).entries
    start.prepare(child, new, drawn_entries(graph, MUTATIONS, 0, new))
    gap = start.disturb(graph, child, new, torch.Generator().manual_seed(0))
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


def test_directions_of_a_weight_that_holds_one_unit_a_column() -> None:
    """As Hugging Face's Conv1D, which GPT-2 is made of."""

    class Products(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = (torch.nn.Parameter(torch.randn(6, 6)) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ self.first) @ self.last

    torch.manual_seed(0)
    graph = gg.trace(Products(), small.INPUTS[:2])
    grower = Grower(graph, None, GradMax(share=0.5), when=Interval(1), every=1, verify=False)
    with grower.observe():
        grower.module(small.INPUTS).square().sum().backward()
    proposal = grower.propose()
    assert proposal is not None, grower.decisions
    (candidate,) = proposal.candidates
    child = grower.apply(proposal)
    new = child.module.get_parameter("first").detach()[:, 6:].T
    assert torch.allclose(torch.nn.functional.normalize(new, dim=1), candidate.start.incoming["first"], atol=1e-6)
    assert torch.allclose(child.module(small.INPUTS), graph.module(small.INPUTS), atol=1e-5)


@pytest.mark.parametrize("kind", ["he", "noise"])
def test_what_does_not_preserve_measures_its_gap(kind: str) -> None:
    difference, _, gap = _started(Start(kind, size=0.1))
    assert float(difference.abs().max()) > 1e-3
    assert gap is not None
    assert 1e-3 < gap < 3


class Normed(torch.nn.Module):
    """A layer norm over a hidden width: new units have to hold the mean of the old ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


@pytest.mark.parametrize("kind", ["variance", "directions"])
def test_the_mean_rows_in_front_of_a_layer_norm_are_left_as_they_are(kind: str) -> None:
    graph, mutations = gg.trace(Normed(), small.INPUTS[:2]), ["widen(first, extra=2)"]
    child = gg.apply(graph, mutations, share=False)
    new = newness(graph, mutations, 0).entries
    drawn = drawn_entries(graph, mutations, 0, new)
    assert "first.weight" in new
    assert "first.weight" not in drawn
    start = Start(kind, incoming={"first.weight": torch.nn.functional.normalize(torch.randn(2, 6), dim=1)})
    before = output_of(graph)
    start.prepare(child, new, drawn)
    assert distance(before, output_of(child)) < 1e-6
    assert torch.allclose(child.module(small.INPUTS), graph.module(small.INPUTS), atol=1e-6)
    weight = child.module.get_parameter("first.weight").detach()
    assert torch.allclose(weight[5:], weight[:5].mean(0).expand(2, 6), atol=1e-6)


def test_outputs_are_taken_in_the_mode_that_a_graph_holds_for_and_leave_it_as_it_was() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5))
    graph = gg.trace(net, small.INPUTS[:4])
    one = replace(graph, modes=frozenset({"train"}))
    state = {name: tensor.clone() for name, tensor in graph.module.state_dict().items()}
    random = torch.get_rng_state()
    assert torch.equal(output_of(one), output_of(one))
    assert float((output_of(one) == 0).double().mean()) > 0.1, "what dropout leaves out in train mode"
    assert float((output_of(graph) == 0).double().mean()) == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in graph.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_unknown_start_is_named() -> None:
    with pytest.raises(TrainingError, match="no start 'zero'; there are fresh, variance, directions, he, noise"):
        Start("zero")
