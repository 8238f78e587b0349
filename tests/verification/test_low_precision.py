"""In float16, bfloat16 and under autocast the child errs no more than its parent, or is flagged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.rewrite import tensors

NARROW = ("float16", "bfloat16", "autocast")


def traced() -> gg.Graph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.LayerNorm(16), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 3))
    return gg.trace(model, torch.randn(4, 5))


@pytest.mark.parametrize("text", ["split(2)", "widen(2, extra=3)", "widen(0, extra=4)", "deepen(3)"])
def test_right_rewrites_hold_in_low_precision(text: str) -> None:
    graph = traced()
    verdict = gg.verify(graph, gg.apply(graph, text), modes=("eval", *NARROW))
    assert verdict.preserved is True, verdict
    assert [check.mode for check in verdict.checks if check.mode in NARROW] == list(NARROW)


def test_shares_that_do_not_add_up_in_low_precision_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that is right in float32 and wrong in narrower types."""
    share = tensors._share

    def wrong(new: torch.Tensor, growth: Any, occurrence: int, *rest: Any) -> None:
        share(new, growth, occurrence, *rest)
        if new.dtype in (torch.float16, torch.bfloat16):
            new.mul_(1.5)

    graph = traced()
    with monkeypatch.context() as patch:
        patch.setattr(tensors, "_share", wrong)
        verdict = gg.verify(graph, gg.apply(graph, "split(2)"), modes=("eval", *NARROW))
    assert {check.mode for check in verdict.checks if not check.passed} == {"float16", "bfloat16"}


def test_a_parent_that_cannot_be_cast_is_not_held_against_the_child() -> None:
    """It names the dtype that it was written for."""

    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x)
            result: torch.Tensor = self.last((hidden > 0).to(torch.float32) * hidden)
            return result

    torch.manual_seed(0)
    graph = gg.trace(Casting(), torch.randn(4, 5))
    verdict = gg.verify(graph, gg.apply(graph, "widen(first, extra=2)"), modes=("eval", "float16"))
    assert verdict.preserved is True, verdict
    assert any(note.startswith("float16: not compared, `last` fails") for note in verdict.notes), verdict.notes


def test_a_parent_that_does_not_even_have_shapes_in_it_is_not_held_against_the_child() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
            self.register_buffer("turned", torch.randn(5, 8), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x)[:, None]
            queries = hidden * self.turned.float()
            return self.last(nn.functional.scaled_dot_product_attention(queries, queries, hidden))

    torch.manual_seed(0)
    graph = gg.trace(Attending(), torch.randn(2, 5, 4))
    verdict = gg.verify(graph, gg.apply(graph, "deepen(last, kind=mlp)"), modes=("eval", "bfloat16"))
    assert verdict.preserved is True, verdict
    assert any("bfloat16: not compared, the parent itself does not run in it" in note for note in verdict.notes)


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    graph = traced()
    with pytest.raises(gg.NotPreserved, match=r"no mode \['evil'\]; gg.verify knows eval, train, lattice, extremes"):
        gg.verify(graph, graph, modes=("eval", "evil"))


def test_further_modes_want_a_common_ledger() -> None:
    graph = traced()
    first, second = gg.apply(graph, "split(2)"), gg.apply(graph, "widen(2, extra=1)")
    verdict = gg.verify(first, second, modes=("eval", "lattice"))
    assert verdict.preserved is None
    assert "common ledger" in verdict.reason
