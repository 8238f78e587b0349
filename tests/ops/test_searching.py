"""Values looked up among others: whole numbers and truths come out, of which the new ones are finite."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

FINITE = "free>free zero>free mean>free copy>copy"
BOUNDARIES = torch.tensor([-0.5, 0.0, 0.7], dtype=torch.float64)


def _on(run: Callable[[Any], Any]) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4))
        return Probe(run, {"x": x}, None, {"b": BOUNDARIES, "i": torch.tensor([0, 2])})

    return build


def _in_rows(draw: Draw) -> nn.Module:
    """Boundaries of its own for each row."""
    sources = {"x": normal_tensor(draw, 2, 4), "y": normal_tensor(draw, 2, 3).cumsum(1).sort(1)[0]}
    return Probe(lambda m: op(torch.searchsorted, m.y, m.x).double(), sources)


def _taken(target: Any, m: Any) -> Any:
    return op(target, m.x, m.i)


def _both(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


CASES = [
    Case((torch.bucketize,), _on(lambda m: op(torch.bucketize, m.x, m.b).double()), _both(FINITE)),
    Case((torch.searchsorted,), _on(lambda m: op(torch.searchsorted, m.b, m.x).double()), _both(FINITE)),
    Case((torch.searchsorted,), _in_rows, _both(FINITE), "in-rows"),
    Case((torch.isin,), _on(lambda m: op(torch.isin, m.x, m.b).double()), _both(FINITE)),
    *(Case((target,), _on(partial(_taken, target)), {}) for target in (torch.take, "take")),
]  # fmt: skip


test_square = squares(CASES, 2)
