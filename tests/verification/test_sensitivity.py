"""Outputs that could not show a mistake, and those that need not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.verification.sensitivity import degeneracy


class Masked(nn.Module):
    """Beside its answer the mask, of nothing here, as masked autoencoders return it.

    Of the inputs, or of as many places as a hidden value has.
    """

    def __init__(self, sized: bool) -> None:
        super().__init__()
        self.first, self.last, self.sized = nn.Linear(3, 4), nn.Linear(4, 2), sized

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.first(x).relu()
        return self.last(hidden), hidden.new_zeros(len(hidden)) if self.sized else (x > 1e9).to(x.dtype)


@pytest.mark.parametrize("sized", [False, True])
def test_an_output_of_zeros_that_no_parameter_reaches_hides_nothing(sized: bool) -> None:
    torch.manual_seed(0)
    graph = gg.trace(Masked(sized), torch.randn(4, 3))
    grown = gg.apply(graph, "widen(first, extra=2)", share=False)
    assert gg.verify(graph, grown).preserved is True
    with torch.no_grad():
        grown.module.get_parameter("last.weight")[0, 0] *= 1 + 1e-6
    assert gg.verify(graph, grown).preserved is False


class Causal(nn.Module):
    """It masks what comes later, if anything does: in a batch of one nothing, which its graph refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu()
        later = hidden.new_ones(len(hidden), len(hidden)).triu(1).bool()
        if later.any():
            hidden = hidden + later.to(hidden.dtype) @ hidden
        result: torch.Tensor = self.last(hidden)
        return result


def test_inputs_that_a_graph_refuses_by_their_sizes_are_no_error_of_verification() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Causal(), torch.randn(4, 3))
    grown = gg.apply(graph, "widen(first, extra=2)", share=False)
    assert gg.verify(graph, grown).preserved is True
    with torch.no_grad():
        grown.module.get_parameter("last.weight")[0, 0] *= 1 + 1e-6
    assert gg.verify(graph, grown).preserved is False


class Tempered(nn.Module):
    """Logits, and a temperature that no input reaches; or a head that is still zero."""

    def __init__(self, closed: bool) -> None:
        super().__init__()
        self.hidden, self.last, self.other = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 1)
        self.temperature, self.closed = nn.Parameter(torch.tensor(0.5)), closed
        if closed:
            nn.init.zeros_(self.other.weight)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.hidden(x))
        second = self.other(hidden) if self.closed else self.temperature.exp()
        return {"second": second, "logits": self.last(hidden)}


def test_outputs_that_no_input_reaches_leave_no_doubt() -> None:
    for closed in (False, True):
        torch.manual_seed(0)
        graph = gg.trace(Tempered(closed), torch.randn(5, 3))
        verdict = gg.verify(graph, gg.apply(graph, "widen(hidden, extra=2)"))
        assert verdict.preserved, verdict
        assert ("refilled" in str(verdict)) is closed


class Policy(nn.Module):
    """A mean, and a deviation that is a parameter, for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean, self.deviation = nn.Linear(7, 8), nn.Linear(8, 3), nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean(torch.tanh(self.hidden(x))), self.deviation.exp().expand(x.shape[0], 3)


def test_outputs_that_an_input_gives_their_size_alone_leave_no_doubt() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Policy(), torch.randn(5, 7))
    verdict = gg.verify(graph, gg.apply(graph, "split(hidden)"))
    assert verdict.preserved, verdict
    assert "refilled" not in str(verdict)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([torch.tensor([1]), torch.tensor([2])], "no output is of floating point"),
        ([torch.tensor([1.0, torch.inf]), torch.tensor([2.0, 3.0])], "an output is not finite"),
        ([torch.tensor([1.0, 3.0]), torch.tensor([torch.inf, 3.0])], ""),  # of another input it may overflow
        ([torch.tensor([1e-8]), torch.tensor([1e-9])], "an output vanishes"),
        ([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0])], "same for every input"),
        ([torch.tensor([1.0, 2.0]), torch.tensor([2.0, 5.0])], ""),
    ],
)
def test_outputs_that_could_hide_a_mistake_are_named(outputs: list[torch.Tensor], words: str) -> None:
    found = degeneracy(outputs)
    assert words in found
    assert bool(found) is bool(words)


def test_a_mistake_is_planted_where_it_shows_in_a_block_that_is_closed() -> None:
    """The router of experts that are all equal has no gradient but rounding, and the others' weights are zero."""
    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double(), torch.randn(4, 3).double())
    closed = gg.apply(graph, ["deepen(1, kind=mlp)", "split(1_deepen.linear1)", "upcycle-experts(1_deepen)"])
    verdict = gg.verify(graph, closed)
    assert verdict.preserved is True, str(verdict)


class Summed(nn.Module):
    """A sum in whole numbers: torch computes it, but not where a gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.last(self.first(x).relu())
        return y, torch.sum(y, -1, dtype=torch.int64)


def test_a_model_that_only_runs_without_gradients_is_verified() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Summed().double(), torch.randn(4, 3).double())
    verdict = gg.verify(graph, gg.apply(graph, "widen(first, extra=2)"))
    assert verdict.preserved is True, str(verdict)


class Saturated(nn.Module):
    """A gate that a batch's own statistics open, and those of earlier ones, whatever they are, leave at 0 or 1."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.gated, self.last = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(x) + self.gated(torch.sigmoid(self.norm(1e8 * self.up(x))))
        return result


def test_a_mistake_that_eval_mode_hides_is_planted_in_train_mode() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Saturated().double(), torch.randn(6, 3).double())
    grown = gg.apply(graph, "deepen(up, kind=mlp)")
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is True, str(verdict)
    alone = gg.verify(graph, grown, modes=["eval"])
    assert alone.preserved is None
    assert "does not show at the outputs" in str(alone)
