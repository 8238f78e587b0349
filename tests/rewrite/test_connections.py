"""Which two values can be joined, and what is said where they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from tests.passes.claims import (
    assert_equal,
    grown,
)
from tests.rewrite.small_models import Forward


class Odd(nn.Module):
    """Values of several ranks, dtypes and batches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.left, self.right = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.pos, self.row, self.wide, self.head = (
            nn.Parameter(torch.randn(2, 4)),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 3),
        )
        self.tokens, self.padded = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = self.left(x) * self.right(x)
        rows = self.row(x.mean((2, 3)) + self.pos.sum(0))
        wide = x.flatten(2).transpose(1, 2)
        long = self.wide(wide.flatten(0, 1))
        padded = self.padded(F.pad(self.tokens(wide), (0, 0, 1, 1)))
        return self.head(rows.double().float()) + long.sum() + padded.sum()


REFUSED = [
    ("left", "conv", gg.Declined, "a cycle would arise: `left` is computed from `conv`"),
    ("right", "left", gg.Declined, "`right` runs behind `left`"),
    ("conv", "row", gg.Declined, "maps of shape (2, 4, 3, 5) and features of shape (2, 4) cannot be added"),
    ("row", "wide", gg.Declined, "batch or dtype differ: (2, 4) of torch.float32 and (30, 4) of torch.float32"),
    ("row", ":double", gg.Declined, "torch.float64"),
    ("x", "left", gg.Declined, "`x` is an input of the model"),
    ("pos", "row", gg.Declined, "it is a parameter"),
    (":sum", "head", gg.Declined, "no batch of channels"),
    ("tokens", "padded", gg.Declined, "the lengths of (2, 15, 6) and (2, 17, 4) differ"),
    ("conv", "conv", gg.MutationError, "cannot be added to itself"),
    ("con", "left", gg.MutationError, "there is no site `con`; did you mean 'conv'"),
    ("conv", "lef", gg.MutationError, "there is no site `lef`; did you mean 'left'"),
]


@pytest.fixture(scope="module")
def odd() -> Graph:
    return gg.trace(Odd(), torch.randn(2, 2, 3, 5))


@pytest.mark.parametrize(("source", "target", "error", "words"), REFUSED)
def test_refusals(odd: Graph, source: str, target: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        gg.apply(odd, f"add-skip({source}, target={target})")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"add-skip({source}, target={target}): ")


class TwoInputs(nn.Module):
    """Tokens of two inputs, of one length in the example; the second also with its batch behind its length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        one, two = self.a(x), self.b(y)
        turned = self.c(two.transpose(0, 1))
        return self.d(two).sum() + one + turned.mean(0).unsqueeze(1)


def test_sizes_that_agree_in_the_example_alone() -> None:
    graph = gg.trace(TwoInputs(), (torch.randn(4, 4, 3), torch.randn(4, 4, 3)))
    with pytest.raises(gg.Declined, match=r"axis 1 is axis 1 of `x` in `a` and axis 1 of `y` in `b`: other inputs"):
        gg.apply(graph, "add-skip(a, target=b)")
    with pytest.raises(gg.Declined, match=r"axis 0 is the batch in `b` and axis 1 of `y` in `c`"):
        gg.apply(graph, "add-skip(b, target=c)")
    child = grown(graph, "add-skip(b, target=d)")
    for lengths in ((4, 4), (2, 6), (5, 1)):
        inputs = [torch.randn(3, length, 3) for length in lengths]
        assert_equal(graph.module(*inputs), child.module(*inputs), 0.0, str(lengths))


def _turned(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Maps, and features of the same shape where there are as many positions as channels."""
    features = m.row(torch.relu(m.conv(x)).transpose(1, 2))
    return m.head(torch.relu(features))


def _latents(m: Any, x: torch.Tensor) -> torch.Tensor:
    """As many tokens as the model has latents, on the example."""
    tokens = torch.relu(m.row(x))
    latents = m.latents + torch.relu(m.other(tokens.mean(1, keepdim=True)))
    return m.head(tokens).sum(1) + m.head(torch.relu(m.row(latents))).sum(1)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (_turned, r"maps of shape \(4, 6, 6\) and features of shape \(4, 6, 6\) cannot be added"),
        (_latents, r"axis 1 of `relu` is as long as the inputs make it, and that of `relu_2` as a parameter"),
    ],
)
def test_shapes_that_agree_on_an_example_as_long_as_wide(run: Any, said: str) -> None:
    layers = {name: nn.Linear(6, 6) for name in ("row", "other", "head")}
    model = Forward(run, conv=nn.Conv1d(6, 6, 3, padding=1), latents=nn.Parameter(torch.randn(1, 6, 6)), **layers)
    graph = gg.trace(model.double(), torch.randn(4, 6, 6).double())
    with pytest.raises(gg.Declined, match=said):
        gg.apply(graph, f"add-skip(:relu, target=:relu{'@2' if run is _turned else '@3'})")
    for mutation in graph.mutations("add-skip"):
        child = gg.apply(graph, mutation)
        x = torch.randn(3, 6, 9).double() if run is _turned else torch.randn(3, 9, 6).double()
        assert_equal(graph.module(x), child.module(x), 0.0, str(mutation))


# -- the rest of what every pass claims --------------------------------------------------------------------------
