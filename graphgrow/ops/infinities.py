"""Whether entries may be infinite by a model's own doing: masks and paddings of minus infinity, and where they end.

A zero weight closes what is finite alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir.bounds import Bounds
from graphgrow.ir.facts import NodeFacts, varies
from graphgrow.ir.value import Value
from graphgrow.layers import ScaledDotProductAttention
from graphgrow.ops.bounding import bounds_of, items, name_of, table_at
from graphgrow.ops.call import plain

_ATTENTIONS = (F.scaled_dot_product_attention, nn.MultiheadAttention, ScaledDotProductAttention)
_LIMITS = {  # of what clamps, each limit: its name, its position, and the number that would move everything
    **dict.fromkeys(("clamp", "clip"), (("min", 1, math.inf), ("max", 2, -math.inf))),
    "clamp_min": (("min", 1, math.inf),),
    "clamp_max": (("max", 1, -math.inf),),
}
_ORDERED = ("var", "std", "norm", "vector_norm")  # the order of a norm may be infinite, and its entries are not
_MAXIMA = {f"max_pool{rank}d": rank for rank in (1, 2, 3)}


def mark_infinite(facts: NodeFacts, module: nn.Module | None, args: Any, kwargs: Any) -> None:
    """Set whether what an operator puts out may be infinite, once its bounds are known."""
    target = type(module) if module is not None else facts.node.target
    held = _holds_infinity(facts, target, module, args, kwargs)
    for value, _ in facts.flows:
        value.infinite = held and not value.bounds.limited
        value.margins = _margins(facts, target, module, args, kwargs) if value.infinite else ()


def _holds_infinity(facts: NodeFacts, target: object, module: nn.Module | None, args: Any, kwargs: Any) -> bool:
    name = name_of(target)
    if name == "exp":  # of minus infinity that is 0
        return False
    if name in _LIMITS:
        return facts.operands[0].infinite or _moves_to_infinity(facts.node, args, kwargs, *_LIMITS[name])
    if name in _MAXIMA and facts.operands[0].margins:
        options = kwargs if module is None else {key: getattr(module, key) for key in _WINDOW}
        return not _windows_meet(facts.operands[0].margins, _MAXIMA[name], *args[1:], **options)
    operands = _attended(args, kwargs) if target in _ATTENTIONS else facts.operands
    named = name not in _ORDERED and _is_infinite([*items((args, kwargs)), getattr(module, "value", None)])
    return named or any(value.infinite for value in operands)


def _attended(args: Any, kwargs: Any) -> list[Value]:
    """Queries, keys and values: a mask of minus infinity ends in the softmax of what is attended to."""
    places = zip(("query", "key", "value"), (*args[:3], None, None, None), strict=False)
    found = (plain(kwargs.get(name, given)) for name, given in places)
    return [value for value in found if isinstance(value, Value)]


def _moves_to_infinity(node: fx.Node, args: Any, kwargs: Any, *limits: tuple[str, int, float]) -> bool:
    """Whether a lower limit is infinity, or an upper one minus infinity; the others, limits that are off, do nothing.

    Args:
        node: that clamps.
        args: its arguments, values in the place of the nodes that it reads.
        kwargs: those by name.
        limits: as in `_LIMITS`.
    """
    for name, at, moving in limits:
        limit, source = (a[at] if len(a) > at else k.get(name) for a, k in ((args, kwargs), (node.args, node.kwargs)))
        if not isinstance(limit, Value):
            if plain(limit) == moving:
                return True
        elif limit.infinite:
            table = table_at(source) if isinstance(source, fx.Node) else None
            if table is None or bool((table == moving).any()):
                return True
    return False


def _is_infinite(given: Iterable[Any]) -> bool:
    """Whether an infinite number is among the arguments: that of `masked_fill`, `where`, `full`, of a padding."""
    return any(isinstance(item, float) and math.isinf(item) for item in given)


def _margins(facts: NodeFacts, target: object, module: nn.Module | None, args: Any, kwargs: Any) -> tuple[Bounds, ...]:
    """How many places of minus infinity a padding puts at both ends of each axis, as `Value` has it; () of others."""
    if target in (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d):
        amounts, filled = getattr(module, "padding", ()), getattr(module, "value", None)
    elif target in (F.pad, torch._C._nn.pad):
        given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
        amounts, filled = given["pad"], plain(given.get("value"))
    else:
        return ()
    alone = filled == -math.inf and not facts.operands[0].infinite
    return tuple(map(bounds_of, amounts)) if alone else ()


_WINDOW = ("kernel_size", "padding", "dilation", "ceil_mode")


def _windows_meet(
    margins: tuple[Bounds, ...], rank: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: Any = False, return_indices: Any = False,
) -> bool:  # fmt: skip
    """Whether each window of a maximum holds a place that is no margin: none of these is as wide as a window.

    Where there are gaps in windows, or one may begin behind the end, nothing is claimed.
    """
    form = [*items((kernel_size, padding, dilation))]
    if ceil_mode or any(map(varies, form)) or any(item != 1 for item in items((dilation,))):
        return False
    kernels, paddings = (_each(number, rank) for number in (kernel_size, padding))
    for at, margin in enumerate(margins):
        axis = rank - 1 - at // 2  # from the last axis on
        widest = margin.high if axis < 0 else margin.high + paddings[axis]
        if margin.low < 0 or widest > (0 if axis < 0 else kernels[axis] - 1):
            return False
    return True


def _each(number: Any, rank: int) -> tuple[Any, ...]:
    """A number for each axis, where one may stand for all."""
    numbers = tuple(items((number,)))
    return numbers * rank if len(numbers) == 1 else numbers
