"""Special functions of each unit alone."""

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
from tests.preserved import assert_preserved

ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
FINITE = "free>free zero>free mean>free copy>copy"
PARTIAL = "copy>copy"
LINEAR = "free>free zero>zero mean>mean copy>copy share>share"

special = torch.special
UNIT: dict[Any, tuple[Any, ...]] = {special.ndtri: (), torch.logit: (), "logit": (), special.logit: ()}
ORDERED: dict[Any, tuple[Any, ...]] = {"polygamma": (1,), torch.mvlgamma: (2,), "mvlgamma": (2,)}


def _of(target: Any, *rest: Any, before: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4))
        return Probe(lambda m: op(target, m.x, *rest), {"x": x if before is None else before(x)})

    return build


def _polygamma(target: Any) -> Callable[[Draw], nn.Module]:
    """Its order comes first."""
    return lambda draw: Probe(lambda m: op(target, 1, m.x), {"x": normal_tensor(draw, 2, 3).abs() + 1})


def _times(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x, y = normal_tensor(draw, 2, 3), normal_tensor(draw, 2, 3).abs() + 1
        return Probe(lambda m: op(target, m.x, m.y), {"x": x, "y": y})

    return build


def _both(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


CASES = [
    *(Case((target,), _of(target), _both(FINITE)) for target in (special.ndtr, special.log_ndtr, special.i0e)),
    Case((special.i1e,), _of(special.i1e), _both(ZERO_KEEPING)),
    *(Case((target,), _of(target), _both("zero>free copy>copy"))
      for target in (torch.i0, "i0", special.i0, special.erfcx)),
    Case((special.i1,), _of(special.i1), _both("zero>zero copy>copy")),
    *(Case((target,), _of(target, before=torch.tanh), _both("zero>zero copy>copy"))
      for target in (torch.erfinv, "erfinv")),
    *(Case((target,), _of(target, before=lambda x: x.abs() + 1), _both(PARTIAL))
      for target in (torch.lgamma, "lgamma", torch.digamma, "digamma", special.entr)),
    *(Case((target,), _polygamma(target), _both(PARTIAL)) for target in (torch.polygamma, special.polygamma)),
    *(Case((target,), _of(target, *rest, before=lambda x: x.abs() + 2), _both(PARTIAL))
      for target, rest in ORDERED.items()),
    *(Case((target,), _of(target, before=torch.sigmoid), _both(PARTIAL)) for target in UNIT),
    *(Case((target,), _of(target, 0.01), _both(FINITE), "clamped") for target in (torch.logit, "logit", special.logit)),
    *(Case((target,), _times(target), _both("copy>copy share>share"))
      for target in (torch.xlogy, "xlogy", special.xlog1py)),
    Case((torch.xlogy,), _of(torch.xlogy, 2.0), _both(LINEAR), "by-a-number"),
]  # fmt: skip


test_square = squares(CASES, 2)


class _Between(nn.Module):
    def __init__(self, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self.a, self.out, self.run = nn.Linear(3, 4), nn.Linear(4, 2), run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.run(self.a(x)))
        return result


def _graph(run: Callable[[Any], Any]) -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(_Between(run).double(), torch.randn(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "run",
    [
        lambda h: torch.lgamma(1 + torch.relu(h)),
        lambda h: torch.special.psi(1 + torch.sigmoid(h)),
        lambda h: torch.polygamma(2, 1 + torch.relu(h)),
        lambda h: torch.mvlgamma(1 + torch.relu(h), 2),
        lambda h: torch.special.logit(torch.sigmoid(h) * 0.5 + 0.25),
        lambda h: torch.xlogy(h, torch.relu(h) + 1),
        lambda h: torch.acosh(torch.relu(h) + 1.5),
    ],
)
def test_units_appended_where_the_function_is_finite(run: Callable[[Any], Any]) -> None:
    graph = _graph(run)
    assert_preserved(graph, gg.apply(graph, "widen(a, extra=2)"))


@pytest.mark.parametrize(
    "run",
    [
        lambda h: torch.lgamma(torch.relu(h)),
        lambda h: torch.mvlgamma(0.5 + torch.relu(h), 2),
        lambda h: torch.logit(torch.sigmoid(h)),  # which float32 rounds to 1
        lambda h: torch.logit(torch.sigmoid(h), 0.0),
        lambda h: torch.xlogy(h, torch.relu(h)),
        lambda h: torch.special.xlog1py(h, torch.tanh(h)),
        lambda h: torch.acosh(torch.relu(h) + 0.5),
        lambda h: torch.special.i0(h.exp()),
    ],
)
def test_units_that_could_meet_a_pole_are_declined(run: Callable[[Any], Any]) -> None:
    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(_graph(run), "widen(a, extra=2)")
