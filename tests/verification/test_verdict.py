"""What a verdict says to a reader: aligned lines that fit a terminal, and how each bound came about, once."""

from __future__ import annotations

import torch
from torch import nn

import graphgrow as gg
from graphgrow.verification.verdict import Check, Verdict

NOISE, NARROW = "32 times the noise of one ulp", "4 times the parent's error"


def test_a_verdict_is_aligned_and_says_each_limit_once() -> None:
    checks = (
        Check("kept", "ties", 0.0, 0.0, "none", True, (), 12),
        Check("eval", "outputs, float64", 1.5e-16, 3e-15, "output", True, (0, 3), 3, NOISE),
        Check("train", "buffers", 0.0, 0.0, "bn.running_mean", True, (1,), 4, NOISE),
        Check("gradients", "inputs, eval", 1e-3, 1e-15, "input 0", False, (2,), 1, NOISE),
        Check("eval", "outputs, float32", 1e-7, 1e-6, "output", True, (0, 0), 3, NARROW),
        Check("alive", "copies part", 2.0, 0.0, "conv.weight", False, (), 7),
        Check("eval", "the child runs", float("inf"), 0.0, "conv", False),
    )
    verdict = Verdict(False, 1e-3, 1e-15, ("eval", "train", "alive"), checks, "conv", "3 fail", ("a note",))
    assert str(verdict).splitlines() == [
        "NOT preserved: 3 fail (eval, train and alive)",
        "  ok    kept       ties                12 compared, none fails",
        "  ok    eval       outputs, float64     3 compared, error 1.5e-16 <= 3.0e-15 at output[0, 3]",
        "  ok    train      buffers              4 compared, no difference",
        "  FAIL  gradients  inputs, eval         1 compared, error 1.0e-03 > 1.0e-15 at input 0[2]",
        "  ok    eval       outputs, float32     3 compared, error 1.0e-07 <= 1.0e-06 at output[0, 0]",
        "  FAIL  alive      copies part          7 compared, 2 fail, first conv.weight",
        "  FAIL  eval       the child runs    fails at conv",
        "  the graphs part at `conv`",
        f"  bound: {NOISE} (outputs, float64; gradients)",
        f"  bound: {NARROW} (outputs, float32)",
        "  a note",
    ]


def test_a_verdict_without_checks_says_so() -> None:
    assert str(Verdict(None, 0.0, 0.0, (), (), reason="nothing was compared")) == (
        "undetermined: nothing was compared (no mode)"
    )


def test_the_verdict_on_a_small_net_fits_a_terminal() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3))
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=2)"))
    assert all(len(line) <= 100 for line in str(verdict).splitlines()), str(verdict)
