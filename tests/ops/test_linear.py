"""nn.Linear, F.linear, matmul and bmm."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
# A bias is added to each unit: zeros do not stay zeros, nor shares shares, but a mean moves along.
WITH_BIAS = "free>free zero>free mean>mean copy>copy"
SUMMED = "free>- zero>- mean>- copy>- share>-"  # along the axis that is summed over, by what the other side holds
ROWS = "free>free zero>free|zero mean>free|mean copy>copy share>share"


def _module(kind: type[nn.Linear], bias: bool) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        inputs, outputs = draw(2, 4), draw(2, 4)
        layer = kind(inputs, outputs, bias=bias)
        return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, 3, inputs)}, {"op": layer})

    return build


def _function(bias: bool) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        inputs, outputs = draw(2, 4), draw(2, 4)
        sources = {"x": normal_tensor(draw, 3, inputs), "w": normal_tensor(draw, outputs, inputs)}
        if not bias:
            return Probe(lambda m: op(F.linear, m.x, m.w), sources)
        return Probe(lambda m: op(F.linear, m.x, m.w, m.b), {**sources, "b": normal_tensor(draw, outputs)})

    return build


def _square(draw: Draw) -> nn.Module:
    """A residual layer, whose weight has the axis twice: written along one, read along the other."""
    width = draw(2, 4)
    return Probe(lambda m: m.x + m.op(m.x), {"x": normal_tensor(draw, 3, width)}, {"op": nn.Linear(width, width)})


def _product(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        n, k, m = draw(2, 4), draw(2, 4), draw(2, 4)
        batch = 2, draw(2, 3)
        rank = 1 if target in (torch.bmm, "bmm") else draw(1, 2)
        x, y = normal_tensor(draw, *batch[:rank], n, k), normal_tensor(draw, *batch[:rank], k, m)
        return Probe(lambda p: op(target, p.x, p.y), {"x": x, "y": y})

    return build


def _flat_product(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        n, k, m = draw(2, 4), draw(2, 4), draw(2, 4)
        return Probe(lambda p: op(target, p.x, p.y), {"x": normal_tensor(draw, n, k), "y": normal_tensor(draw, k, m)})

    return build


def _broadcast(draw: Draw) -> nn.Module:
    """(b, n, k) x (k, m): the batch axis is that of one operand."""
    b, n, k, m = (draw(2, 4) for _ in range(4))
    return Probe(lambda p: p.x @ p.y, {"x": normal_tensor(draw, b, n, k), "y": normal_tensor(draw, k, m)})


def _flattened(draw: Draw) -> nn.Module:
    """(n, c, h) flattened and read by a layer over (c h)."""
    n, c, h = draw(2, 3), draw(2, 3), draw(2, 3)
    layer = nn.Linear(c * h, draw(2, 3))
    return Probe(lambda m: m.op(m.x.flatten(1)), {"x": normal_tensor(draw, n, c, h)}, {"op": layer})


def _shaped(target: Any, *letters: str, **options: Any) -> Callable[[Draw], nn.Module]:
    """Operands x, y, z whose axes are named by letters; the first takes the others."""

    def build(draw: Draw) -> nn.Module:
        size = {letter: draw(2, 4) for letter in sorted(set("".join(letters)))}
        sources = {
            name: normal_tensor(draw, *(size[a] for a in axes))
            for name, axes in zip("xyz"[: len(letters)], letters, strict=True)
        }
        return Probe(lambda m: op(target, *(getattr(m, name) for name in sources), **options), sources)

    return build


def _chain(target: Any, *letters: str) -> Callable[[Draw], nn.Module]:
    """Operands handed over one by one, or in a list."""

    def build(draw: Draw) -> nn.Module:
        size = {letter: draw(2, 4) for letter in sorted(set("".join(letters)))}
        shapes = zip("xyz", ([size[a] for a in axes] for axes in letters), strict=False)
        sources = {name: normal_tensor(draw, *shape) for name, shape in shapes}

        def run(m: Any) -> Any:
            operands = [getattr(m, name) for name in sources]
            return op(target, operands) if target is torch.linalg.multi_dot else op(target, *operands)

        return Probe(run, sources)

    return build


def _vectors(target: Any, dim: int) -> Callable[[Draw], nn.Module]:
    """Vectors of three entries along an axis, none of which is left to be found out."""

    def build(draw: Draw) -> nn.Module:
        sizes = [2, 4, 4]
        sizes[dim] = 3
        sources = {name: normal_tensor(draw, *sizes) for name in "xy"}
        return Probe(lambda m: op(target, m.x, m.y, **({} if target is torch.linalg.cross else {"dim": dim})), sources)

    return build


def _added_by_name(draw: Draw) -> nn.Module:
    """As BLOOM calls it."""
    b, n, m, k = (draw(2, 3) for _ in range(4))
    sources = {"x": normal_tensor(draw, b, n, m), "y": normal_tensor(draw, b, n, k), "z": normal_tensor(draw, b, k, m)}
    return Probe(lambda p: op(torch.baddbmm, p.x, batch2=p.z, batch1=p.y, beta=0.5, alpha=2.0), sources)


def _bilinear(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        n, i, j, o = (draw(2, 3) for _ in range(4))
        sources = {"x": normal_tensor(draw, n, i), "y": normal_tensor(draw, n, j)}
        if target is nn.Bilinear:
            return Probe(lambda m: m.op(m.x, m.y), sources, {"op": nn.Bilinear(i, j, o)})
        sources |= {"w": normal_tensor(draw, o, i, j), "b": normal_tensor(draw, o)}
        return Probe(lambda m: op(F.bilinear, m.x, m.y, m.w, m.b), sources)

    return build


ADDED = "free>free zero>free|zero mean>free|mean copy>copy share>share"
BOTH = "free>free zero>free mean>free copy>copy"
# The input is a pattern alone, whatever it holds.
WITHOUT = "free>free|mean|zero zero>free|mean|zero mean>free|mean|zero copy>copy|share share>copy|share"
MANY = "free>free zero>free|zero mean>free copy>copy share>share"

# What comes out is what the rows and the bias hold, whatever the stream holds.
RESIDUAL = "free>free|mean|zero zero>free|mean|zero mean>free|mean|zero copy>copy|share share>copy|share"
PRODUCT = "free>free|zero zero>zero mean>free|zero copy>copy|share share>share"
MODULE = {"x.0": WITH_BIAS, "x.1": WITH_BIAS, "x.2": SUMMED, "op.bias.0": ROWS}
MATRIX = {"x.0": LINEAR, "x.1": SUMMED, "y.1": LINEAR}

CASES = [
    *(Case((kind,), _module(kind, True), MODULE) for kind in (nn.Linear, NonDynamicallyQuantizableLinear)),
    Case((nn.Linear,), _module(nn.Linear, False),
         {"x.0": LINEAR, "x.1": LINEAR, "x.2": SUMMED, "op.weight.0": LINEAR}, "no-bias"),
    Case((nn.Linear,), _square, {"x.0": WITH_BIAS, "x.1": RESIDUAL}, "residual"),
    Case((nn.Linear,), _flattened, {"x.0": WITH_BIAS, "x.1": SUMMED, "x.2": SUMMED, "op.bias.0": ROWS}, "flattened"),
    Case((F.linear,), _function(False), {"x.0": LINEAR, "x.1": SUMMED, "w.0": LINEAR}),
    Case((F.linear,), _function(True), {"x.0": WITH_BIAS, "x.1": SUMMED, "b.0": ROWS}, "bias"),
    Case((torch.tensordot,), _shaped(torch.tensordot, "nk", "km", dims=1), MATRIX),
    Case((torch.tensordot,), _shaped(torch.tensordot, "nkj", "kjm"),
         {"x.0": LINEAR, "x.1": SUMMED, "x.2": SUMMED, "y.2": LINEAR}, "two-axes"),
    Case((torch.tensordot,), _shaped(torch.tensordot, "knj", "mjk", dims=([0, -1], [2, 1])),
         {"x.0": SUMMED, "x.1": LINEAR, "x.2": SUMMED, "y.0": LINEAR}, "by-lists"),
    Case((torch.tensordot,), _shaped(torch.tensordot, "n", "m", dims=0), {"x.0": LINEAR, "y.0": LINEAR}, "outer"),
    *(Case((target,), _flat_product(target), MATRIX)
      for target in (torch.matmul, operator.matmul, "matmul", "__matmul__", torch.mm, "mm")),
    *(Case((target,), _shaped(target, "nk", "k"), {"x.0": LINEAR, "x.1": SUMMED})
      for target in (torch.mv, "mv", torch.matmul)),
    *(Case((target,), _shaped(target, "k", "k"), {"x.0": SUMMED}) for target in (torch.dot, "dot", torch.vdot, "vdot")),
    Case((torch.matmul,), _shaped(torch.matmul, "k", "bkm"), {"x.0": SUMMED, "y.0": LINEAR, "y.2": LINEAR}, "vector"),
    *(Case((target,), _chain(target, "nk", "km", "ml"),
           {"x.0": LINEAR, "x.1": SUMMED, "y.1": SUMMED, "z.1": LINEAR})
      for target in (torch.linalg.multi_dot, torch.chain_matmul)),
    Case((torch.linalg.multi_dot,), _chain(torch.linalg.multi_dot, "k", "km", "m"), {"x.0": SUMMED, "y.1": SUMMED},
         "vectors"),
    *(Case((target,), _shaped(target, "bnk", "mk"),
           {"x.0": LINEAR, "x.1": LINEAR, "x.2": SUMMED, "y.0": LINEAR}) for target in (torch.inner, "inner")),
    Case((torch.linalg.vecdot,), _shaped(torch.linalg.vecdot, "nk", "nk"), {"x.0": PRODUCT, "x.1": SUMMED}),
    Case((torch.linalg.vecdot,), _shaped(torch.linalg.vecdot, "nkm", "km", dim=-2),
         {"x.0": LINEAR, "x.1": SUMMED, "x.2": PRODUCT}, "broadcast"),
    *(Case((target,), _vectors(target, dim), {f"x.{i}": table for i in range(3) if i != dim})
      for target, dim, table in ((torch.linalg.cross, 2, PRODUCT), (torch.cross, 1, PRODUCT), ("cross", 1, PRODUCT))),
    *(Case((target,), _shaped(target, "nm", "kj"),
           {"x.0": LINEAR, "x.1": LINEAR, "y.0": LINEAR, "y.1": LINEAR}) for target in (torch.kron, "kron")),
    *(Case((target,), _shaped(target, "n", "m"), {"x.0": LINEAR, "y.0": LINEAR})
      for target in (torch.outer, "outer", torch.ger, "ger")),
    *(Case((target,), _shaped(target, "nm", "nk", "km"), {"x.0": ADDED, "x.1": ADDED, "y.1": SUMMED})
      for target in (torch.addmm, "addmm")),
    Case((torch.addmm,), _shaped(torch.addmm, "m", "nk", "km"), {"x.0": ADDED, "y.0": WITH_BIAS, "y.1": SUMMED},
         "bias"),
    Case((torch.addmm,), _shaped(torch.addmm, "nm", "nk", "km", beta=0, alpha=0.5),
         {"x.0": WITHOUT, "x.1": WITHOUT, "y.1": SUMMED}, "beta-zero"),
    *(Case((target,), _shaped(target, "bnm", "bnk", "bkm"), {"x.0": MANY, "x.1": ADDED, "x.2": ADDED, "y.2": SUMMED})
      for target in (torch.baddbmm, "baddbmm")),
    Case((torch.baddbmm,), _added_by_name, {"x.0": MANY, "x.1": ADDED, "x.2": ADDED, "y.2": SUMMED}, "by-name"),
    *(Case((target,), _shaped(target, "n", "nk", "k"), {"x.0": ADDED, "y.1": SUMMED})
      for target in (torch.addmv, "addmv")),
    Case((F.bilinear,), _bilinear(F.bilinear), {"x.0": BOTH, "x.1": SUMMED, "w.2": SUMMED, "b.0": ROWS}),
    Case((nn.Bilinear,), _bilinear(nn.Bilinear), {"x.0": BOTH, "x.1": SUMMED, "y.1": SUMMED, "op.bias.0": ROWS}),
    *(Case((target,), _product(target), {"x.0": PRODUCT, "x.1": LINEAR, "x.2": SUMMED, "y.2": LINEAR}, "batched")
      for target in (torch.bmm, "bmm")),
    Case((torch.matmul, operator.matmul), _broadcast, {"x.0": LINEAR, "x.1": LINEAR, "x.2": SUMMED, "y.1": LINEAR},
         "broadcast"),
]  # fmt: skip


test_square = squares(CASES, 2)
