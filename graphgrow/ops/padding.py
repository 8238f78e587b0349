"""Padding: numbers put around what is there."""

from __future__ import annotations

from collections.abc import Sequence
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
    amounts = pad or ()
    touched = {rank - 1 - i // 2 for i, amount in enumerate(amounts) if varies(amount) or plain(amount)}
    zeros = not varies(value) and not plain(value)  # or what lies elsewhere along the padded axes
    path = call.argument_path(1, "pad")
    across: fl.Flow = fl.Same(call.operand(input, drop=touched))
    axes, stacks = list(input.axes), list[tuple[Term, fl.Stack]]()
    for axis in sorted(touched):
        sides = amounts[2 * (rank - 1 - axis) :][:2]
        if not (zeros and mode == "constant" and call.module is None and _may_grow(input, axis, sides)):
            call.freeze((input.axes[axis],), _PADDED)
            axes[axis] = call.fixed(shape[axis], _PADDED)
            continue
        before, after = (call.space(amount) for amount in sides)
        for place, space in enumerate((before, after)):
            if space.size:
                call.literal((*path, 2 * (rank - 1 - axis) + place), space)
        terms = [term for term in (before, input.axes[axis], after) if term.size]
        axes[axis] = Concat(tuple(terms))
        own = fl.Operand(input, (axis,))
        flows: list[fl.Flow] = [own if term is input.axes[axis] else fl.Blank(term) for term in terms]
        stacks.append((axes[axis], fl.Stack(tuple(flows))))
    if not zeros:
        return call.output(axes, fl.Pointwise((call.operand(input),)))
    flow = across
    for joined, stack in stacks:
        flow = fl.Along((joined,), stack, flow)
    return call.output(axes, flow)


def _may_grow(input: Value, axis: int, amounts: Sequence[Any]) -> bool:
    """Whether an axis has units that are not frozen, and numbers of the source alone say how it is padded."""
    fixed = any(varies(amount) or not isinstance(amount, int) or amount < 0 for amount in amounts)
    return not fixed and any(leaf.frozen is None for leaf in leaves(input.axes[axis]))
