"""Which other sizes of the inputs gg.verify tries: those that the parent runs at, or those that are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.verification import sizes
from tests.verification.wrong_models import any_size

NONE = "other sizes of the inputs: none was compared, as the parent takes the example's alone"


class Masked(nn.Module):
    """Tokens with a mask of their length and a matrix of scores between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 6), nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self.out(scores @ (self.embed(tokens) * mask[..., None]))


def sizes_of(verdict: gg.Verdict) -> list[str]:
    """What the checks at other sizes say of these."""
    return [c.what.removeprefix("outputs, float64, ") for c in verdict.checks if c.what.startswith("outputs, float64,")]


def found(model: nn.Module, *inputs: torch.Tensor, growth: str = "widen(0, extra=1)") -> gg.Verdict:
    torch.manual_seed(0)
    graph = gg.trace(model, inputs)
    verdict = gg.verify(graph, gg.apply(graph, growth))
    assert verdict.preserved is True, verdict
    return verdict


@pytest.mark.parametrize(
    ("model", "example", "sizes"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)), (2, 3, 8, 8), "1x3x9x10"),
        (nn.Sequential(nn.Conv1d(8, 4, 3), nn.Conv1d(4, 2, 1)), (2, 8, 8), "1x8x9"),
        (nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), (2, 6, 5), "1x7x5"),
    ],
)
def test_what_is_free_changes_and_what_is_fixed_stays(model: nn.Module, example: tuple[int, ...], sizes: str) -> None:
    assert sizes_of(found(model, torch.randn(example))) == [sizes]


def test_a_multiple_is_found_where_a_stride_wants_one() -> None:
    graph = any_size()
    assert sizes_of(gg.verify(graph, gg.apply(graph, "widen(stem, extra=2)"))) == ["1x3x10"]


def test_a_sequence_and_its_mask_change_together() -> None:
    inputs = (torch.tensor([[0, 8, 2, 3], [1, 2, 5, 7]]), torch.ones(2, 4), torch.randn(2, 4, 4))
    verdict = found(Masked(), *inputs, growth="widen(embed, extra=2)")
    assert sizes_of(verdict) == ["1x5, 1x5, 1x5x5"]


def test_a_parent_of_one_size_is_named() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.Flatten(), nn.Linear(32, 2))
    verdict = found(model, torch.randn(2, 3, 8))
    assert sizes_of(verdict) == []
    assert NONE in verdict.notes


def test_no_size_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    original = sizes._Search._answers

    def noted(self: Any, probe: Any) -> bool:
        tried.append(tuple(leaf.shape for leaf in probe[0]))
        return original(self, probe)

    monkeypatch.setattr(sizes._Search, "_answers", noted)
    verdict = found(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), torch.randn(1, 5))
    assert NONE in verdict.notes
    assert len(tried) > 3
    assert len(set(tried)) == len(tried)


def test_sizes_that_are_asked_for_are_compared_and_no_others() -> None:
    graph = any_size()
    grown = gg.apply(graph, "widen(stem, extra=2)")
    assert sizes_of(gg.verify(graph, grown, sizes=[(2, 3, 4), (5, 3, 16)])) == ["2x3x4", "5x3x16"]
    assert sizes_of(gg.verify(graph, grown, sizes=())) == []
    refused = gg.verify(graph, grown, sizes=[(2, 3, 18)])
    assert refused.preserved is True
    assert any("on inputs of 2x3x18, in the parent itself: not compared" in note for note in refused.notes)


def test_a_child_that_takes_the_examples_size_alone_is_flagged_by_its_node() -> None:
    graph = any_size()
    grown = gg.apply(graph, "widen(stem, extra=2)", share=False)
    next(node for node in grown.module.graph.nodes if node.name == "mul").args = (2, 8)
    grown.module.recompile()
    verdict = gg.verify(graph, grown, batch_sizes=())
    assert (verdict.preserved, verdict.first_difference) == (False, "reshape"), verdict
    assert "on inputs of 2x3x10, which the parent takes:" in verdict.notes


def test_two_plain_modules_are_compared_at_the_sizes_that_are_asked_for() -> None:
    first, second = nn.AdaptiveAvgPool1d(1), nn.AvgPool1d(8)
    x = torch.randn(2, 3, 8)
    assert gg.verify(first, second, inputs=x).preserved is not False
    assert gg.verify(first, second, inputs=x, sizes=[(2, 3, 9)]).preserved is False


@pytest.mark.parametrize("sizes", [[(2, 3)], [(2, 3, 0)], [((2, 3, 8), (2, 3, 8))], [()], 5])
def test_what_is_no_size_of_these_inputs_is_refused(sizes: Any) -> None:
    graph = any_size()
    with pytest.raises(gg.NotPreserved, match="wanted is a list of shapes"):
        gg.verify(graph, gg.apply(graph, "widen(stem, extra=2)"), sizes=sizes)


def test_no_node_of_the_parent_learns_of_the_other_sizes() -> None:
    graph = any_size()
    gg.verify(graph, gg.apply(graph, "widen(stem, extra=2)"))
    assert graph.module(torch.randn(2, 3, 8)).shape == (2, 5)
    assert F.relu(next(n for n in graph.module.graph.nodes if n.name == "stem").meta["value"]).shape == (2, 4, 8)
