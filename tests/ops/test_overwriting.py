"""A copy of a tensor in which a part is other than it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

CHOICE = "free>free zero>free|zero mean>free|mean copy>copy share>share"
FILLED = "free>free zero>free mean>free copy>copy"
SUM = CHOICE


def _written(target: Any, shape: tuple[int, ...], *arguments: Any) -> Callable[[Draw], nn.Module]:
    """y written into x (2, 4, 3)."""

    def build(draw: Draw) -> nn.Module:
        sources = {"x": normal_tensor(draw, 2, 4, 3), "y": normal_tensor(draw, *shape)}
        return Probe(lambda m: op(target, m.x, m.y, *arguments), sources)

    return build


def _filled(target: Any) -> Callable[[Draw], nn.Module]:
    index = torch.tensor([0, 2])
    return lambda draw: Probe(
        lambda m: op(target, m.x, 1, m.i, 0.5), {"x": normal_tensor(draw, 2, 4, 3)}, None, {"i": index}
    )


def _put(target: Any, count: int, *shape: int, accumulate: bool = False) -> Callable[[Draw], nn.Module]:
    """y of a shape written into x (3, 4, 2) at places that one or two tensors name."""
    index = torch.tensor([0, 2])

    def build(draw: Draw) -> nn.Module:
        sources = {"x": normal_tensor(draw, 3, 4, 2), "y": normal_tensor(draw, *shape)}
        return Probe(lambda m: op(target, m.x, (m.i,) * count, m.y, accumulate), sources, None, {"i": index})

    return build


def _masked(target: Any) -> Callable[[Draw], nn.Module]:
    sources = ("x", "y")
    return lambda draw: Probe(
        lambda m: op(target, m.x, m.x > 0, m.y), {name: normal_tensor(draw, 2, 3) for name in sources}
    )


CASES = [
    *(Case((target,), _filled(target), {"x.0": FILLED, "x.2": FILLED}) for target in (torch.index_fill, "index_fill")),
    *(Case((target,), _written(target, (2, 3), 1, 2), {"x.0": CHOICE, "x.2": CHOICE})
      for target in (torch.select_scatter, "select_scatter")),
    *(Case((target,), _written(target, (2, 2, 3), 1, 1, 3), {"x.0": CHOICE, "x.2": CHOICE})
      for target in (torch.slice_scatter, "slice_scatter")),
    *(Case((target,), _put(target, 1, 2, 4, 2), {"x.1": CHOICE, "x.2": CHOICE})
      for target in (torch.index_put, "index_put")),
    Case((torch.index_put,), _put(torch.index_put, 2, 2, 2), {"x.2": CHOICE}, "two"),
    Case((torch.index_put,), _put(torch.index_put, 1, 2, 4, 2, accumulate=True), {"x.1": SUM, "x.2": SUM}, "added"),
    Case((torch.index_put,), _put(torch.index_put, 1, 2), {"x.1": FILLED, "x.2": CHOICE}, "broadcast"),
    *(Case((target,), _masked(target), {}) for target in (torch.masked_scatter, "masked_scatter")),
]  # fmt: skip


test_square = squares(CASES, 2)
