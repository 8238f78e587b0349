"""Along an axis whose order counts: it stays as it is, and all else is carried along."""

from __future__ import annotations

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
FINITE = "free>free zero>free mean>free copy>copy"
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"


def _on(target: Any, *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4), draw(2, 4))
        return Probe(lambda m: op(target, m.x, *arguments, **options), {"x": x})

    return build


def _behind_another(draw: Draw) -> nn.Module:
    sources = {"x": normal_tensor(draw, 2, 3), "y": normal_tensor(draw, 2, 1)}
    return Probe(lambda m: op(torch.diff, m.x, prepend=m.y), sources)


def _rest(table: str, *along: int) -> dict[str, str]:
    return {f"x.{i}": table for i in range(3) if i not in along}


CASES = [
    *(Case((target,), _on(target, 1), _rest(LINEAR, 1)) for target in (torch.cumsum, "cumsum")),
    Case((torch.cumsum,), _on(torch.cumsum, dim=1), _rest(LINEAR, 1), "by-name"),
    *(Case((target,), _on(target, 1, 1), _rest(LINEAR, 1)) for target in (torch.diff, "diff")),
    Case((torch.diff,), _on(torch.diff), _rest(LINEAR, 2), "last"),
    Case((torch.diff,), _on(torch.diff, dim=0), _rest(LINEAR, 0), "by-name"),
    Case((torch.diff,), _behind_another, {}, "behind-another"),
    Case((torch.cumulative_trapezoid,), _on(torch.cumulative_trapezoid, dim=1), _rest(LINEAR, 1)),
    *(Case((target,), _on(target, dx=0.5, dim=1), _rest(LINEAR, 1)) for target in (torch.trapezoid, torch.trapz)),
    *(Case((target,), _on(target, 1), _rest(ZERO_KEEPING, 1)) for target in (torch.cumprod, "cumprod")),
    *(Case((target,), _on(target, 1), _rest(FINITE, 1)) for target in (torch.logcumsumexp, "logcumsumexp")),
    *(Case((target,), _on(target, (0, 2)), {"x.1": LINEAR}) for target in (torch.flip, "flip")),
    Case(("flip",), _on("flip", 0, 2), {"x.1": LINEAR}, "one-by-one"),
    Case((torch.flip,), _on(torch.flip, dims=(1,)), _rest(LINEAR, 1), "by-name"),
    *(Case((target,), _on(target), _rest(LINEAR, 0)) for target in (torch.flipud, "flipud")),
    *(Case((target,), _on(target), _rest(LINEAR, 1)) for target in (torch.fliplr, "fliplr")),
    *(Case((target,), _on(target, 1, (0, 2)), {"x.1": LINEAR}) for target in (torch.rot90, "rot90")),
]  # fmt: skip


test_square = squares(CASES, 2)


def test_integral_over_places_of_a_tensor_declines() -> None:
    class Integrated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.out(torch.trapezoid(self.a(x), t[:, None], dim=0))
            return result

    graph = gg.trace(Integrated(), (torch.randn(5, 3), torch.arange(5.0)))
    assert "places that are a tensor" in str(graph.group("a").frozen)


def test_a_sequence_read_backwards_is_shared_among_copies() -> None:
    """As two directions of a scan are summed: the shares of one pass through the turn."""

    class BothWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.norm, self.out = nn.Linear(3, 6), nn.RMSNorm(6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value = self.value(x)
            backwards = value.flip(1).cumsum(1).flip(1)
            result: torch.Tensor = self.out(self.norm(value.cumsum(1) + backwards))
            return result

    torch.manual_seed(0)
    graph = gg.trace(BothWays().double(), torch.randn(2, 5, 3, dtype=torch.float64))
    for text in ("widen(value, extra=2)", "split(value)"):  # the norm wants zeros, which the scans hand on
        child = gg.apply(graph, text)
        assert_preserved(graph, child)
        assert gg.verify(graph, child).preserved is True
