"""Concatenation, stacking and splitting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
PART = "free>free zero>zero mean>mean copy>copy share>share"
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
ACROSS = "free>free zero>free|zero mean>free|mean copy>copy share>share"  # by what the other operand holds


def _cat(target: Any, dim: int, by: str = "dim") -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        a, b, c = draw(2, 3), draw(2, 4), draw(2, 4)
        sources = {"x": normal_tensor(draw, a, b, 2), "y": normal_tensor(draw, a, c, 2)}
        return Probe(lambda m: _joined(target, [m.x, m.y], dim, by), sources)

    return build


def _joined(target: Any, tensors: list[Any], dim: int, by: str) -> Any:
    return target(tensors, **{by: dim}) if by else target(tensors, dim)


def _stacked_along(target: Any, axis: int) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        shape = [draw(2, 3) for _ in range(3)]
        sources = {"x": normal_tensor(draw, *shape)}
        shape[axis] = draw(2, 4)
        return Probe(lambda m: target((m.x, m.y)), {**sources, "y": normal_tensor(draw, *shape)})

    return build


def _same_twice(draw: Draw) -> nn.Module:
    """x beside itself: two occurrences of one axis, each with a fill of its own."""
    return Probe(lambda m: torch.cat([m.x, m.x.tanh()], 1), {"x": normal_tensor(draw, 2, draw(2, 4))})


def _three(draw: Draw) -> nn.Module:
    """x, y, x: the occurrences are apart."""
    sources = {"x": normal_tensor(draw, 2, draw(2, 4)), "y": normal_tensor(draw, 2, draw(1, 3))}
    return Probe(lambda m: torch.cat([m.x, m.y, m.x], 1), sources)


def _with_nothing(draw: Draw) -> nn.Module:
    """Behind an empty tensor of one axis, as a cache is before its first use."""
    sources = {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))}
    return Probe(lambda m: torch.cat([torch.empty(0, dtype=m.x.dtype), m.x], 1), sources)


def _stack(draw: Draw) -> nn.Module:
    a, b = draw(2, 4), draw(2, 4)
    sources = {"x": normal_tensor(draw, a, b), "y": normal_tensor(draw, a, b)}
    return Probe(lambda m: torch.stack([m.x, m.y], 1), sources)


def _columns(draw: Draw) -> nn.Module:
    size = draw(2, 4)
    sources = {name: normal_tensor(draw, size) for name in "xy"}
    return Probe(lambda m: op(torch.column_stack, (m.x, m.y)), sources)


def _grid(indexing: str) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        sources = {name: normal_tensor(draw, draw(2, 4)) for name in "xy"}
        return Probe(lambda m: op(torch.meshgrid, m.x, m.y, indexing=indexing), sources)

    return build


def _on(target: Any, shape: tuple[int, ...], *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x, *arguments, **options), {"x": normal_tensor(draw, *shape)})


def _chunk_product(draw: Draw) -> nn.Module:
    """(3 h d) cut by a chunk, then each part into heads: what a packed projection does."""
    heads, width = draw(2, 3), draw(2, 3)

    def run(m: Any) -> Any:
        return [part.unflatten(-1, (heads, width)) for part in m.x.chunk(3, dim=-1)]

    return Probe(run, {"x": normal_tensor(draw, 2, 3 * heads * width)})


def _every(*names: str) -> dict[str, str]:
    return {name: PART if ":" in name else LINEAR for name in names}


# Of a concatenation each part is an axis of its own; the others are shared by all operands.
JOINED = {"x.0": ACROSS, "x.1": LINEAR, "x.2": ACROSS, "y.1": LINEAR}
STACKED = [
    {**{f"x.{i}": ACROSS for i in range(3) if i != axis}, f"x.{axis}": LINEAR, f"y.{axis}": LINEAR} for axis in range(3)
]
# Along the axis of one of them, the other's entries are the same everywhere.
SPREAD = "free>even,free zero>even,zero mean>even,mean copy>copy,even share>even,share"
CHUNKED = {"x.0": LINEAR, "x.1:0": PART, "x.1:1": PART, "x.2": LINEAR}

CASES = [
    *(Case((target,), _cat(target, 1, ""), JOINED) for target in (torch.cat, torch.concat, torch.concatenate)),
    Case((torch.cat,), _cat(torch.cat, -2), JOINED, "from-the-end"),
    Case((torch.cat,), _cat(torch.cat, 1, "axis"), JOINED, "by-axis"),
    *(Case((target,), _stacked_along(target, axis), STACKED[axis])
      for axis, target in enumerate((torch.vstack, torch.hstack, torch.dstack))),
    Case((torch.cat,), _same_twice, {"x.0": ZERO_KEEPING, "x.1": "free>free zero>zero mean>free,mean copy>copy"},
         "twice"),
    Case((torch.cat,), _three, {"x.0": ACROSS, "x.1": LINEAR, "y.1": LINEAR}, "apart"),
    Case((torch.cat,), _with_nothing, {"x.0": LINEAR, "x.1": LINEAR}, "nothing"),
    Case((torch.stack,), _stack, {"x.0": ACROSS, "x.1": ACROSS}),
    Case((torch.column_stack,), _stacked_along(torch.column_stack, 1), STACKED[1]),
    Case((torch.column_stack,), _columns, {"x.0": ACROSS}, "vectors"),
    *(Case((target,), _on(target, (2, 6, 2), 2), CHUNKED) for target in (torch.hsplit, "hsplit")),
    *(Case((target,), _on(target, (5, 3, 2), [2]), {**_every("x.0:0", "x.0:1", "x.1", "x.2")})
      for target in (torch.vsplit, "vsplit")),
    *(Case((target,), _on(target, (2, 3, 4), 2), _every("x.0", "x.1", "x.2:0", "x.2:1"))
      for target in (torch.dsplit, "dsplit")),
    Case((torch.hsplit,), _on(torch.hsplit, (6,), 2), _every("x.0:0", "x.0:1"), "vector"),
    *(Case((torch.meshgrid,), _grid(indexing), {"x.0": SPREAD, "y.0": SPREAD}, indexing) for indexing in ("ij", "xy")),
    *(Case((target,), _on(target, (2, 6, 2), 2, 1), CHUNKED) for target in (torch.chunk, "chunk")),
    *(Case((target,), _on(target, (2, 6, 2), 3, 1), CHUNKED) for target in (torch.split, "split")),
    *(Case((target,), _on(target, (2, 5, 2), [2, 3], dim=1), CHUNKED, "parts") for target in (torch.split, "split")),
    *(Case((target,), _on(target, (2, 6, 2), 2, 1), CHUNKED) for target in (torch.tensor_split, "tensor_split")),
    *(Case((target,), _on(target, (2, 5, 2), dim=1, indices=(2,)), CHUNKED, "indices")
      for target in (torch.tensor_split, "tensor_split")),
    Case((torch.tensor_split,), _on(torch.tensor_split, (2, 5, 2), dim=1, sections=2), CHUNKED, "sections"),
    Case(("tensor_split",), _on("tensor_split", (2, 5, 2), (2,), 1), CHUNKED, "places"),
    Case(("split",), _on("split", (2, 6, 2), split_size=3, dim=1), CHUNKED, "by-name"),
    Case((torch.chunk,), _on(torch.chunk, (2, 6), 4, 1), {"x.0": LINEAR, **_every("x.1:0", "x.1:1", "x.1:2")}, "fewer"),
    Case((torch.chunk,), _on(torch.chunk, (2, 6), 1, 1), _every("x.0", "x.1"), "one"),
    Case(("chunk",), _chunk_product, {"x.0": LINEAR, **{f"x.1:{i}": PART for i in range(6)}}, "heads"),
]  # fmt: skip


test_square = squares(CASES, 4)
