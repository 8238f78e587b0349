"""Choices element by element, by conditions that are one for all units and by others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"  # a condition for all units, and zeros for the rest
FINITE = "free>free zero>free mean>free copy>copy"  # a number for the rest that is not zero
EACH = "free>free zero>zero mean>free copy>copy share>share"  # a condition for each unit
ONE_OF_TWO = "free>free zero>free|zero mean>free|mean copy>copy share>share"
EACH_OF_TWO = "free>free zero>free|zero mean>free copy>copy share>share"


def _masked(target: Any, number: float, whole: bool) -> Callable[[Draw], nn.Module]:
    """x where y is negative, a number elsewhere; y has one entry for all units, or one for each."""

    def build(draw: Draw) -> nn.Module:
        sizes = draw(2, 4), draw(2, 4)
        x, y = normal_tensor(draw, *sizes), normal_tensor(draw, sizes[0], sizes[1] if whole else 1)

        def run(m: Any) -> Any:
            if target is torch.where:
                return op(target, m.y < 0, m.x, number)
            if target == "where":
                return op(target, m.x, m.y < 0, number)
            return op(target, m.x.clone(), m.y >= 0, number)

        return Probe(run, {"x": x, "y": y})

    return build


def _either(target: Any, whole: bool) -> Callable[[Draw], nn.Module]:
    """x where z is positive, y elsewhere."""

    def build(draw: Draw) -> nn.Module:
        sizes = draw(2, 4), draw(2, 4)
        x, y = normal_tensor(draw, *sizes), normal_tensor(draw, *sizes)
        z = normal_tensor(draw, sizes[0], sizes[1] if whole else 1)
        first, second = ((lambda m: m.z > 0), (lambda m: m.x)) if target is torch.where else (
            (lambda m: m.x), (lambda m: m.z > 0))  # fmt: skip
        return Probe(lambda m: op(target, first(m), second(m), m.y), {"x": x, "y": y, "z": z})

    return build


MASKED = (torch.where, "where", "masked_fill", "masked_fill_", torch.masked_fill)
CASES = [
    *(Case((target,), _masked(target, 0, False), {"x.0": EACH, "x.1": LINEAR}, "zeros-beside") for target in MASKED),
    *(Case((target,), _masked(target, 0, True), {"x.0": EACH, "x.1": EACH}, "zeros") for target in MASKED),
    *(Case((target,), _masked(target, 0.25, False), {"x.0": FINITE, "x.1": FINITE}, "beside") for target in MASKED),
    *(Case((target,), _masked(target, 0.25, True), {"x.0": FINITE, "x.1": FINITE}) for target in MASKED),
    *(Case((target,), _either(target, True), {"x.0": EACH_OF_TWO, "x.1": EACH_OF_TWO}, "two")
      for target in (torch.where, "where")),
    *(Case((target,), _either(target, False), {"x.0": EACH_OF_TWO, "x.1": ONE_OF_TWO}, "two-beside")
      for target in (torch.where, "where")),
]  # fmt: skip

test_square = squares(CASES, 2)


class _Padded(nn.Module):
    """A residual stream whose padding is set to zero behind each block, in front of its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> Any:
        x = self.embed(x).masked_fill(padding.unsqueeze(-1), 0.0)
        x = torch.where(padding.unsqueeze(-1), x, x + self.mix(self.norm1(x)))
        return self.head(self.norm2(x))


@pytest.mark.parametrize("mutation", ["widen(embed, extra=2)", "split(embed)"])
def test_a_stream_with_padding_of_zeros_grows_beside_its_norms(mutation: str) -> None:
    torch.manual_seed(0)
    x, padding = torch.randn(2, 5, 3, dtype=torch.float64), torch.arange(5) >= torch.tensor([[3], [5]])
    model = _Padded().double()
    graph = gg.trace(model, (x, padding))
    child = gg.apply(graph, mutation)
    assert torch.allclose(child.module(x, padding), model(x, padding), rtol=1e-12, atol=1e-12)
    verdict = gg.verify(graph, child)
    assert verdict.preserved, verdict
