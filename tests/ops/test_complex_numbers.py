"""Complex numbers: made of real ones, taken apart, multiplied, against torch's own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares
from tests.preserved import assert_preserved

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
SUM = "free>free zero>free|zero mean>free|mean copy>copy share>share"
PRODUCT = "free>free|zero zero>zero mean>free|zero copy>copy|share share>share"


def _numbers(draw: Draw, run: Callable[[Any], Any], *names: str) -> Probe:
    """Sources (b, c, 2): numbers by their parts."""
    b, c = draw(2, 3), draw(2, 3)
    return Probe(run, {name: normal_tensor(draw, b, c, 2) for name in names})


def _of_one(target: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: _numbers(draw, lambda m: op(target, torch.view_as_complex(m.x)), "x")


def _attribute(name: str) -> Callable[[Draw], nn.Module]:
    return lambda draw: _numbers(draw, lambda m: getattr(torch.view_as_complex(m.x), name), "x")


def _pair(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        b, c = draw(2, 3), draw(2, 3)
        sources = {name: normal_tensor(draw, b, c) for name in ("x", "y")}
        return Probe(lambda m: op(target, m.x, m.y), sources)

    return build


def _product(draw: Draw) -> nn.Module:
    return _numbers(draw, lambda m: torch.view_as_complex(m.x) * torch.view_as_complex(m.y), "x", "y")


def _every(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


CASES = [
    Case((torch.view_as_complex,), _of_one(torch.view_as_real), _every(LINEAR)),
    *(Case((target,), _of_one(target), _every(LINEAR))
      for target in (torch.view_as_real, torch.real, torch.imag, torch.conj, "conj", torch.conj_physical,
                     "conj_physical", torch.resolve_conj, "resolve_conj")),
    *(Case((getattr,), _attribute(name), _every(LINEAR), name) for name in ("real", "imag")),
    *(Case((target,), _of_one(target), _every("free>free zero>zero mean>free copy>copy"))
      for target in (torch.angle, "angle", torch.abs)),
    Case((torch.complex,), _pair(torch.complex), _every(SUM)),
    Case((torch.polar,), _pair(torch.polar), _every("free>free zero>zero mean>free copy>copy share>share")),
    Case((operator.mul,), _product, _every(PRODUCT)),
]  # fmt: skip


test_square = squares(CASES, 2)


class Rotary(nn.Module):
    """Attention whose queries and keys are turned as complex numbers, with fewer heads of keys than of queries."""

    turns: torch.Tensor

    def __init__(self, width: int = 12, heads: int = 4, keys: int = 2) -> None:
        super().__init__()
        self.heads, self.keys, self.width = heads, keys, 4
        self.first = nn.Linear(3, width)
        self.q, self.out = nn.Linear(width, heads * 4), nn.Linear(heads * 4, width)
        self.k, self.v = nn.Linear(width, keys * 4), nn.Linear(width, keys * 4)
        self.head = nn.Linear(width, 2)
        angles = torch.outer(torch.arange(16.0), torch.tensor([1.0, 0.01]))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        numbers = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        turns = self.turns[: x.shape[1]].view(1, x.shape[1], 1, -1)
        return torch.view_as_real(numbers * turns).flatten(3).type_as(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        x = self.first(x)
        q = self.turned(self.q(x).view(b, n, self.heads, 4))
        k, v = self.turned(self.k(x).view(b, n, self.keys, 4)), self.v(x).view(b, n, self.keys, 4)
        k, v = (t.repeat_interleave(self.heads // self.keys, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        mixed = ((q @ k.transpose(2, 3)) / 2).softmax(-1) @ v
        result: torch.Tensor = self.head(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return result


def test_heads_grow_through_a_rotation_and_their_width_says_why_not() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Rotary(), torch.randn(2, 5, 3))
    assert "a table of complex numbers (at `turns`)" in graph.explain()
    for text in ("widen(first, extra=4)", "widen(q:0, extra=1)", "split(v:1)", "add-heads(:softmax)"):
        assert_preserved(graph, gg.apply(graph, text))
