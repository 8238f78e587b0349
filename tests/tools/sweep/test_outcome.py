"""What a trial raises becomes its outcome; verdicts become outcomes."""

from __future__ import annotations

import pytest
import torch

import graphgrow as gg
from tools.sweep.outcome import Outcome, attempt, compared, one_line


def raising(error: BaseException) -> Outcome:
    def trial() -> Outcome:
        raise error

    return attempt(trial)


def test_a_trial_that_returns_is_left_alone() -> None:
    assert attempt(lambda: Outcome("preserved", "", 0.5)) == Outcome("preserved", "", 0.5)


def test_declining_what_was_offered_is_told_apart_from_defects() -> None:
    assert raising(gg.Declined("no")) == Outcome("declined", "offered but declined: no")
    assert raising(gg.StructureError("other shapes")) == Outcome("error", "StructureError: other shapes")
    outcome = raising(KeyError("conv1"))
    assert outcome.kind == "error"
    assert outcome.reason.startswith("KeyError: 'conv1' (at test_outcome.py:")


def test_a_lack_of_memory_is_no_defect() -> None:
    assert raising(MemoryError()).kind == "memory"
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert raising(caught.value).kind == "memory"
    assert raising(gg.ExportError("cannot export: std::bad_alloc")).kind == "memory"


def test_an_interruption_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        raising(KeyboardInterrupt())


def test_verdicts_become_outcomes() -> None:
    graph = gg.trace("graphgrow:mlp")
    site = next(iter(graph.mutations("widen")))
    grown = gg.apply(graph, site, share=False)
    good = compared(graph, grown, (1,), seed=0)
    assert good.kind == "preserved"
    assert good.ratio is not None
    assert 0 <= good.ratio <= 1
    with torch.no_grad():
        next(iter(grown.module.parameters())).mul_(1.5)
    wrong = compared(graph, grown, (1,), seed=0)
    assert wrong.kind == "wrong"
    assert "checks failed" in wrong.reason
    assert wrong.ratio is None


def test_long_texts_are_cut_and_lines_joined() -> None:
    assert one_line("a\n  b") == "a b"
    assert one_line("at /home/me/lib/site-packages/timm/x.py:3") == "at timm/x.py:3"
    assert len(one_line("x" * 10_000)) < 500
