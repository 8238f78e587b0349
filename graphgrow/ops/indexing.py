"""Reading and writing by position: indexing, gather, scatter, sorting."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import Derived, Extent
from graphgrow.ir.terms import Space, Term, concat, leaves
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined, meta_shape, plain
from graphgrow.ops.registry import rule
from graphgrow.ops.sizes import only_measured

_BY_POSITION = "indexed by position"


@rule(torch.unbind, "unbind")
def unbind(call: Call, input: Value, dim: int = 0) -> tuple[Value, ...]:
    """Each position of an axis by itself."""
    index = call.axis(input, dim)
    positions = call.take_apart(input.axes[index], _BY_POSITION)
    axes = (*input.axes[:index], *input.axes[index + 1 :])
    flow = fl.Same(call.operand(input, drop=[index]))
    return tuple(
        call.output(axes, _at(flow, positions, number), index=number) for number in range(input.axes[index].size)
    )


@rule(torch.select, "select")
def select(call: Call, input: Value, dim: int, index: Any) -> Value:
    """One position of an axis."""
    at = call.axis(input, dim)
    positions = call.take_apart(input.axes[at], _BY_POSITION)
    flow = _at(fl.Same(call.operand(input, drop=[at])), positions, index)
    return call.output((*input.axes[:at], *input.axes[at + 1 :]), flow)


def _at(flow: fl.Flow, positions: Sequence[Space] | None, index: Any) -> fl.Flow:
    """The flow of what lies at one position of an axis, where that is a number of the source."""
    if positions is None or isinstance(index, (Extent, Derived)) or not isinstance(index, int):
        return flow
    return fl.Pick(flow, positions[index])


@rule(torch.narrow, "narrow")
def narrow(call: Call, input: Value, dim: int, start: Any, length: Any) -> Value:
    """A part of an axis by its first place and its length."""
    at = call.axis(input, dim)
    whole, size = input.axes[at], meta_shape(call.meta)[at]
    if not all(type(number) is int and number >= 0 for number in (start, length)) or size == 0:
        call.freeze([whole], "sliced at places that are computed, or counted from the end")
        kept = call.fixed(size, "sliced by position")
        return call.output((*input.axes[:at], kept, *input.axes[at + 1 :]), fl.Same(call.operand(input, drop=[at])))
    part, before, _ = _parted(call, whole, start, start + size)
    call.cut(whole, (*(before or ()), part))
    if before:
        call.literal(call.argument_path(2, "start"), before[0], within=(whole,))
    call.literal(call.argument_path(3, "length"), part, within=(whole,))
    flow: fl.Flow = fl.Same(call.operand(input, drop=[] if before is None else [at]))
    if before is not None:
        flow = fl.Along((whole,), fl.Slice(fl.Operand(input, (at,)), tuple(before), part), flow)
    return call.output((*input.axes[:at], part, *input.axes[at + 1 :]), flow)


@rule(operator.getitem)
def getitem(call: Call, container: Any, index: Any) -> Any:
    """An item of a tuple, or indexing of a tensor."""
    if not isinstance(container, Value):
        return container[plain(index)] if not isinstance(container, dict) else container[index]
    items = index if isinstance(index, tuple) else (index,)
    if any(isinstance(item, (Value, list)) for item in items):
        return _looked_up(call, container, list(items))
    single = isinstance(index, tuple)
    spare = len(container.axes) - sum(item is not None and item is not Ellipsis for item in items)
    shape = meta_shape(call.meta)
    axes: list[Term] = []
    dropped: set[int] = set()
    cuts: list[tuple[int, Term, list[Term], Term]] = []
    picks: list[tuple[Sequence[Space] | None, Any]] = []
    source = 0
    for position, item in enumerate(items):
        if item is Ellipsis:
            axes.extend(container.axes[source : source + spare])
            source += spare
        elif item is None:
            axes.append(call.fixed(1, "an axis of size 1 that a view makes"))
        elif isinstance(item, slice):
            path = ("args", 1, position) if single else ("args", 1)
            part, before = _sliced(call, container.axes[source], item, shape[len(axes)], path)
            if before is not None:
                cuts.append((source, container.axes[source], before, part))
            axes.append(part)
            source += 1
        elif plain(item) in (0, -1) and only_measured(call.node):  # of the first or last entry, whichever that is
            dropped.add(source)
            source += 1
        else:
            picks.append((call.take_apart(container.axes[source], _BY_POSITION), item))
            dropped.add(source)
            source += 1
    axes.extend(container.axes[source:])
    flow: fl.Flow = fl.Same(call.operand(container, drop=dropped))
    for axis, whole, before, part in cuts:
        flow = fl.Along((whole,), fl.Slice(fl.Operand(container, (axis,)), tuple(before), part), flow)
    for positions, item in picks:
        flow = _at(flow, positions, item)
    return call.output(axes, flow)


def _sliced(call: Call, term: Term, item: slice, size: int, path: tuple[Any, ...]) -> tuple[Term, list[Term] | None]:
    """The part of an axis between two places, and the parts before it (None where it is no part by itself)."""
    if any(isinstance(bound, Value) for bound in (item.start, item.stop, item.step)):
        call.freeze([term], "sliced by a tensor")
        return call.fixed(size, "sliced by a tensor"), None
    from_the_first = item.start is None or (type(item.start) is int and item.start == 0)  # no number that may move
    if from_the_first and item.step in (None, 1) and item.stop is None:
        return term, None
    start, stop, step = slice(*map(plain, (item.start, item.stop, item.step))).indices(term.size)
    if step != 1 or size == 0 or not all(_is_place(bound, term) for bound in (item.start, item.stop)):
        call.freeze([term], "sliced by position")
        return call.fixed(size, "sliced by position"), None
    part, before, after = _parted(call, term, start, stop)
    for bound, front, behind in (
        (item.start, before or (), (part, *after)),
        (item.stop, (*(before or ()), part), after),
    ):
        _anchor(call, term, bound, tuple(front), tuple(behind))
    if item.start is not None and before:
        call.literal((*path, "start"), before[0], within=(term,))
    if item.stop is not None:
        call.literal((*path, "stop"), concat((*(before or ()), part)), within=(term,))
    return part, before


def _anchor(call: Call, term: Term, bound: Any, front: tuple[Term, ...], behind: tuple[Term, ...]) -> None:
    """State what must keep its size for a bound to be the same place in every call.

    That is what stands in front of it; behind it, where it is counted from the end; all of it, where it is computed, or
    lies beyond an end. A size that is that of the parts themselves follows by itself.
    """
    if bound is None:
        return
    side = behind if plain(bound) < 0 else front
    if isinstance(bound, (Extent, Derived)):
        if isinstance(bound, Derived) or _leaves(bound.terms) != _leaves(side) or abs(bound) != _size(side):
            call.cut(term, (term, *bound.terms))
    elif abs(bound) > term.size:
        call.cut(term, (term,))
    else:
        call.cut(term, side)


def _leaves(terms: Sequence[Term]) -> list[Space]:
    return [leaf for term in terms for leaf in leaves(term)]


def _size(terms: Sequence[Term]) -> int:
    return sum(term.size for term in terms)


def _parted(call: Call, term: Term, start: int, stop: int) -> tuple[Term, list[Term] | None, list[Term]]:
    """The part of an axis between two places, the parts before it (None where it is the whole axis) and behind it."""
    if (start, stop) == (0, term.size):
        return term, None, []
    before: list[Term] = [call.space(start)] if start > 0 else []
    after: list[Term] = [call.space(term.size - stop)] if stop < term.size else []
    part = call.space(stop - start)
    call.same(term, concat((*before, part, *after)), "sliced by position")
    return part, before, after


def _is_place(bound: Any, term: Term) -> bool:
    """Whether a bound is a number of the source, or was read off the axis itself; sizes of inputs move."""
    if isinstance(bound, (Extent, Derived)):
        return {leaf for part in bound.terms for leaf in leaves(part)} <= set(leaves(term))
    return bound is None or (isinstance(bound, int) and bound != -1)


def _looked_up(call: Call, table: Value, items: list[Any]) -> Value:
    """Rows looked up by whole numbers: table[index], x[:, i], x[rows, columns], x[None, rows]."""
    if any(isinstance(item, list) and any(isinstance(i, Value) for i in item) for item in items):
        raise RuleDeclined("indexed by a list of tensors")
    items = _in_full(items, len(table.axes))
    numbers = iter(range(len(table.axes)))
    axis_of = {i: next(numbers) for i, item in enumerate(items) if item is not None}
    shape = meta_shape(call.meta)
    indices = [item for item in items if isinstance(item, Value)]
    kinds = [item is None or isinstance(item, slice) for item in items]
    first = kinds.index(False)
    together = False not in kinds[first:][kinds[first:].index(True) :] if True in kinds[first:] else True
    found = align(call, [value.axes for value in indices]) if indices else ()
    if not indices:
        found = (call.fixed(len(next(item for item in items if isinstance(item, list))), _BY_POSITION),)
    kept = [i for i, kind in enumerate(kinds) if kind]
    before = [i for i in kept if i < first] if together else []
    parts: dict[int, Term] = {}
    for i in kept:
        if items[i] is None:
            parts[i] = call.fixed(1, "an axis of size 1 that an index makes")
            continue
        parts[i] = table.axes[axis_of[i]]
        if items[i] != slice(None):
            call.freeze([parts[i]], "sliced by position")
            at_output = i if i in before else i - (len(items) - len(kept)) + len(found)
            parts[i] = call.fixed(shape[at_output], "sliced by position")
    gone = [axis_of[i] for i, kind in enumerate(kinds) if not kind]
    call.freeze((table.axes[axis] for axis in gone), "a table that is indexed by position")
    axes = [*(parts[i] for i in before), *found, *(parts[i] for i in kept if i not in before)]
    rows = fl.Same(call.operand(table, drop=gone))
    return call.output(axes, fl.Along(found, fl.Choose(tuple(map(call.operand, indices))), rows) if indices else rows)


def _in_full(items: list[Any], rank: int) -> list[Any]:
    """An item for each axis of a table, also for those that an ellipsis or the end leaves out, and for each new one."""
    ellipses = [i for i, item in enumerate(items) if item is Ellipsis]
    left = rank - sum(item is not None and item is not Ellipsis for item in items)
    at = ellipses[0] if ellipses else len(items)
    return [*items[:at], *[slice(None)] * left, *items[at + 1 :]]


@rule(torch.roll, "roll")
def roll(call: Call, input: Value, shifts: Any, dims: Any = None) -> Value:
    """Positions moved around."""
    indices = range(len(input.axes)) if dims is None else (dims if isinstance(dims, (tuple, list)) else (dims,))
    call.freeze((input.axes[call.axis(input, i)] for i in indices), "rolled by position")
    return call.output(input.axes, call.same_flow(input))


@rule(torch.index_select, "index_select")
def index_select(call: Call, input: Value, dim: int, index: Value) -> Value:
    """Some positions of an axis, in another order."""
    at = call.axis(input, dim)
    call.freeze([input.axes[at]], _BY_POSITION)
    axes = (*input.axes[:at], *index.axes, *input.axes[at + 1 :])
    return call.output(axes, fl.Same(call.operand(input, drop=[at])))


@rule(torch.gather, "gather")
def gather(call: Call, input: Value, dim: int, index: Value, *, sparse_grad: bool = False) -> Value:
    """For each place of the index, the position that it names along one axis."""
    return _gathered(call, input, dim, index, broadcast=False)


@rule(torch.take_along_dim, "take_along_dim")
def take_along(call: Call, input: Value, indices: Value, dim: int | None = None) -> Value:
    """As gather, with an index that is broadcast."""
    if dim is None:
        raise RuleDeclined("positions of a flattened tensor")
    return _gathered(call, input, dim, indices, broadcast=True)


def _gathered(call: Call, input: Value, dim: int, index: Value, broadcast: bool) -> Value:
    at = call.axis(input, dim)
    call.freeze([input.axes[at], index.axes[at]], _BY_POSITION)
    axes = _beside(call, at, index.axes[at], [input, index], broadcast)
    # linear in what is read, unit by unit, as long as all units are read at the same places
    places = fl.Pointwise((call.operand(index, drop=[at]),))
    return call.output(axes, fl.Mul((call.operand(input, drop=[at]), places)))


@rule(torch.scatter, "scatter", torch.scatter_add, "scatter_add", torch.index_add, "index_add", torch.index_copy,
      "index_copy", "scatter_", "scatter_add_", "index_add_", "index_copy_")  # fmt: skip
def scatter(
    call: Call, input: Value, dim: int, index: Value, src: Any = None, *, alpha: Any = 1, **options: Any
) -> Value:
    """Values added to, or put at, the positions that an index names along one axis."""
    source = options.get("source", options.get("value", src))
    if set(options) - {"source", "value"}:
        raise RuleDeclined("a scatter with a reduction")
    at = call.axis(input, dim)
    name = call.name
    by_rows = name.startswith("index")
    moved = [value for value in (source, None if by_rows else index) if isinstance(value, Value)]
    call.freeze([input.axes[at], *(value.axes[at] for value in moved), *(index.axes if by_rows else ())], _BY_POSITION)
    for value in moved:
        _beside(call, at, input.axes[at], [input, value])
    operands = [call.operand(value, drop=[at]) for value in moved]
    target = call.operand(input)
    if name.rstrip("_").endswith("_add") and by_rows:
        return call.output(input.axes, fl.Add((target, *operands)))
    if by_rows and operands and not name.rstrip("_").endswith("_reduce"):
        return call.output(input.axes, fl.Choose((target, *operands)))
    if name.rstrip("_").endswith("_add"):  # linear in what is added, unit by unit, as long as all go to the same places
        added, places = operands
        return call.output(input.axes, fl.Add((target, fl.Mul((added, fl.Pointwise((places,)))))))
    return call.output(input.axes, fl.Pointwise((target, *operands)))


@rule(torch.scatter_reduce, "scatter_reduce", torch.index_reduce, "index_reduce")
def scatter_reduced(
    call: Call,
    input: Value,
    dim: int,
    index: Value,
    src: Any = None,
    reduce: str = "",
    *,
    source: Any = None,
    include_self: bool = True,
) -> Value:
    """Values at the positions that an index names along one axis, and those of a position reduced to one."""
    return scatter(call, input, dim, index, source if src is None else src)


def _beside(call: Call, at: int, along: Term, values: Sequence[Value], broadcast: bool = False) -> list[Term]:
    """The axes beside one: the same for all, or broadcast; where only some positions are read, both are frozen."""
    shape = meta_shape(call.meta)
    axes: list[Term] = []
    first, second = values
    for i, (term, other) in enumerate(zip(first.axes, second.axes, strict=True)):
        if i == at:
            axes.append(along)
            continue
        if term.size == other.size:
            call.same(term, other)
        else:
            short = [one for one in (term, other) if one.size == 1]
            call.freeze(short if broadcast else [term, other], _BY_POSITION)
        axes.append(term if shape[i] == term.size else other)
    return axes


@rule(torch.topk, "topk", torch.sort, "sort", torch.kthvalue, torch.cummax, torch.cummin, "cummax", "cummin")
def ordered(call: Call, input: Value, *arguments: Any, **options: Any) -> tuple[Value, ...]:
    """Values in order of size along an axis (the last, if none is named), and where they lay."""
    name = call.name
    numbers = [plain(argument) for argument in arguments if not isinstance(argument, bool)]
    place = 1 if name in ("topk", "kthvalue") else 0
    at = call.axis(input, options.get("dim", numbers[place] if len(numbers) > place else -1))
    call.freeze([input.axes[at]], "put in order")
    flow = fl.Pointwise((call.operand(input, drop=[at]),))
    outputs = []
    for i, part in enumerate(call.meta):
        kept = len(part.shape) == len(input.axes)
        along = [call.fixed(part.shape[at], "put in order")] if kept else []
        axes = (*input.axes[:at], *along, *input.axes[at + 1 :])
        outputs.append(call.output(axes, flow, index=i))
    return tuple(outputs)


@rule(torch.argsort, "argsort")
def order(call: Call, input: Value, dim: int = -1, descending: bool = False, stable: bool = False) -> Value:
    """Where the values lie in order of size."""
    call.freeze([input.axes[call.axis(input, dim)]], "put in order")
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(F.one_hot)
def one_hot(call: Call, input: Value, num_classes: int = -1) -> Value:
    """(...) whole numbers -> (..., classes)."""
    classes = call.fixed(meta_shape(call.meta)[-1], "classes by number")
    return call.output((*input.axes, classes), fl.Pointwise((call.operand(input),)))


@rule(torch.tril, torch.triu, "tril", "triu")
def triangle(call: Call, input: Value, diagonal: int = 0) -> Value:
    """Zeros on one side of a diagonal of the last two axes."""
    call.freeze(input.axes[-2:], "a triangle of it")
    return call.output(input.axes, call.same_flow(input))
