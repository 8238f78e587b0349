"""Padding: numbers put around what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import varies
from graphgrow.ir.terms import Concat, Term, leaves
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, meta_shape, plain
from graphgrow.ops.registry import rule

_PADDED = "an axis that is padded"


@rule(F.pad, torch._C._nn.pad, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ZeroPad1d, nn.ZeroPad2d,
      nn.ZeroPad3d,
      nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
      nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)  # fmt: skip
def pad(call: Call, input: Value, pad: Sequence[int] | None = None, mode: str = "constant", value: Any = None) -> Value:
    """Padded axes have new positions; the others are left alone.

    Zeros beside units that may grow, as a shortcut has them around its channels, are parts of the axis: as many as the
    call says.
    """
    shape, rank = meta_shape(call.meta), len(input.axes)
    if call.module is not None:
        pad, value = cast(nn.ConstantPad2d, call.module).padding, getattr(call.module, "value", None)
    amounts, path = pad or (), call.argument_path(1, "pad")
    touched = {rank - 1 - i // 2 for i, amount in enumerate(amounts) if varies(amount) or plain(amount)}
    linear = not varies(value) and not plain(value)  # zeros, or what lies elsewhere along the padded axes
    stated = linear and mode == "constant" and call.module is None
    axes = list(input.axes)
    flow: fl.Flow = fl.Same(call.operand(input, drop=touched)) if linear else fl.Pointwise((call.operand(input),))
    for axis in sorted(touched):
        first = 2 * (rank - 1 - axis)
        sides = {(*path, place): amounts[place] for place in (first, first + 1)}
        if stated and _may_grow(input, axis, sides.values()):
            axes[axis], stack = _surrounded(call, input, axis, sides)
            flow = fl.Along((axes[axis],), stack, flow)
        else:
            call.freeze((input.axes[axis],), _PADDED)
            axes[axis] = call.fixed(shape[axis], _PADDED)
    return call.output(axes, flow)


def _may_grow(input: Value, axis: int, amounts: Iterable[Any]) -> bool:
    """Whether an axis has units that are not frozen, and numbers of the source alone say how it is padded."""
    fixed = any(varies(amount) or not isinstance(amount, int) or amount < 0 for amount in amounts)
    return not fixed and any(leaf.frozen is None for leaf in leaves(input.axes[axis]))


def _surrounded(call: Call, input: Value, axis: int, sides: Mapping[tuple[Any, ...], int]) -> tuple[Concat, fl.Stack]:
    """An axis between zeros, as many as stand at two places of the call, and what it holds."""
    blanks = {path: call.space(amount) for path, amount in sides.items() if amount}
    for path, space in blanks.items():
        call.literal(path, space)
    own: tuple[Term, fl.Flow] = (input.axes[axis], fl.Operand(input, (axis,)))
    before, after = ([(blanks[path], fl.Blank(blanks[path]))] if path in blanks else [] for path in sides)
    terms, flows = zip(*before, own, *after, strict=True)
    return Concat(terms), fl.Stack(flows)
