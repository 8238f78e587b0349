"""Views: reshape, flatten, unflatten, permute, transpose, squeeze, unsqueeze, expand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import Extent
from graphgrow.ir.terms import Axes, Space, Term, leaves, product
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined, meta_shape, plain
from graphgrow.ops.factories import sized_axis
from graphgrow.ops.registry import rule

_AS_OFTEN = "repeated as often as a tensor says"


def _regroup(call: Call, axes: Axes, sizes: Sequence[int]) -> list[Term]:
    """The axes of a row-major view with these sizes, cut and joined from the old ones.

    Walks both from the slowest axis in the smallest blocks of equal size. Axes of size 1 have no place of their
    own in such a walk: one is matched with a 1 at the same point, else dropped (and frozen) or made anew.
    """
    result: list[Term] = []
    old, position = list(axes), 0
    while position < len(sizes):
        size = sizes[position]
        if size == 1:
            matched = bool(old) and old[0].size == 1
            result.append(old.pop(0) if matched else call.fixed(1, "an axis of size 1 that a view makes"))
            position += 1
            continue
        while old and old[0].size == 1:
            call.freeze([old.pop(0)], "an axis of size 1 that a view drops")
        before, after, position = _block(old, sizes, position)
        result.extend(_cut(call, before, after))
    call.freeze(old, "an axis of size 1 that a view drops")
    return result


def _block(old: list[Term], sizes: Sequence[int], position: int) -> tuple[list[Term], list[int], int]:
    """The smallest runs of old axes and new sizes, from here on, with equal products."""
    if not old:
        raise RuleDeclined("a view of other sizes")
    before, after = [old.pop(0)], [sizes[position]]
    have, want = before[0].size, after[0]
    position += 1
    while have != want:
        if have < want:
            if not old:
                raise RuleDeclined("a view of other sizes")
            before.append(old.pop(0))
            have *= before[-1].size
        else:
            if position >= len(sizes):
                raise RuleDeclined("a view of other sizes")
            after.append(sizes[position])
            want *= after[-1]
            position += 1
    return before, after, position


def _cut(call: Call, before: list[Term], after: list[int]) -> list[Term]:
    if len(after) == 1:
        return [product(before)]
    spaces = [call.space(size) if size != 1 else call.fixed(1, "an axis of size 1 that a view makes") for size in after]
    call.same(product(before), product(spaces), "a view that cuts across its axes")
    return list(spaces)


def _view(call: Call, input: Value, paths: list[tuple[Any, ...]] | None, sizes: Sequence[Any] = ()) -> Value:
    axes = _regroup(call, input.axes, list(meta_shape(call.meta)))
    for path, term in zip(paths or [], axes, strict=bool(paths)):
        call.literal(path, term)
    for size, term in zip(sizes, axes, strict=bool(sizes)):
        _refuse_mistaken(input, size, term)
    return call.output(axes, call.view_flow(input))


def _refuse_mistaken(input: Value, size: Any, term: Term) -> None:
    """Decline where a size was read off one axis of the input, and another of that size on the example comes there.

    Positions among themselves (windows of an image that is as high as wide) grow in no case.
    """
    if not isinstance(size, Extent):
        return
    read = {leaf for part in size.terms for leaf in leaves(part)}
    own = {leaf for axis in input.axes for leaf in leaves(axis) if leaf.size > 1}  # a batch of one is dropped
    met = set(leaves(term))
    if read <= own and not read & met and not all(leaf.frozen for leaf in read | met):
        raise RuleDeclined("a view to the size of another axis, which is equal on the example")


def _size_paths(call: Call, first: int, sizes: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Where the sizes stand: spread over the arguments, or in one sequence."""
    if "shape" in call.node.kwargs or "size" in call.node.kwargs:
        name = "shape" if "shape" in call.node.kwargs else "size"
        return [("kwargs", name, i) for i in range(len(sizes))]
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        return [("args", first, i) for i in range(len(sizes[0]))]
    return [("args", first + i) for i in range(len(sizes))]


@rule("view", "reshape")
def view(call: Call, input: Value, *sizes: Any) -> Value:
    """Row-major regrouping of axes."""
    if any(isinstance(size, torch.dtype) for size in sizes):
        raise RuleDeclined("a view as another dtype")
    if not sizes or (len(sizes) == 1 and not isinstance(sizes[0], (tuple, list, int))):
        raise RuleDeclined("sizes that are computed as a whole")
    items = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return _view(call, input, _size_paths(call, 1, sizes), items)


@rule(torch.reshape)
def reshape(call: Call, input: Value, shape: Sequence[Any]) -> Value:
    """Row-major regrouping of axes."""
    at = call.argument_path(1, "shape")
    return _view(call, input, [(*at, i) for i in range(len(shape))], shape)


@rule("view_as", "reshape_as")
def view_as(call: Call, input: Value, other: Value) -> Value:
    """Row-major regrouping to the axes of another tensor, which they then are."""
    axes = _regroup(call, input.axes, list(meta_shape(call.meta)))
    for mine, theirs in zip(axes, other.axes, strict=True):
        call.same(mine, theirs)
    return call.output(axes, call.view_flow(input))


@rule(torch.flatten, "flatten", nn.Flatten, torch.ravel, "ravel")
def flatten(call: Call, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """One axis from several."""
    if isinstance(call.module, nn.Flatten):
        start_dim, end_dim = call.module.start_dim, call.module.end_dim
    start, end = call.axis(input, start_dim), call.axis(input, end_dim)
    if start == end:
        return call.output(input.axes, call.view_flow(input))
    joined = product(input.axes[start : end + 1])
    return call.output((*input.axes[:start], joined, *input.axes[end + 1 :]), call.view_flow(input))


@rule(torch.unflatten, "unflatten", nn.Unflatten)
def unflatten(call: Call, input: Value, dim: int | None = None, sizes: Sequence[Any] = ()) -> Value:
    """Several axes from one."""
    module = call.module
    if isinstance(module, nn.Unflatten):
        dim, sizes = int(module.dim), module.unflattened_size
        if any(size == -1 or not isinstance(size, int) for size in sizes):
            call.freeze(input.axes, "nn.Unflatten restates sizes in a form of its own")
            return _view(call, input, None)
    assert dim is not None
    index = call.axis(input, dim)
    shape = meta_shape(call.meta)
    count = len(shape) - len(input.axes) + 1
    spaces: list[Space] = [
        call.space(size) if size != 1 else call.fixed(1, "an axis of size 1 that a view makes")
        for size in shape[index : index + count]
    ]
    call.same(input.axes[index], product(spaces), "a view that cuts across its axes")
    if module is not None:
        call.attribute("unflattened_size", *spaces, as_tuple=True)
    for i, space in enumerate(spaces if module is None else ()):
        call.literal((*call.argument_path(2, "sizes"), i), space)
    return call.output((*input.axes[:index], *spaces, *input.axes[index + 1 :]), call.view_flow(input))


@rule(torch.permute, "permute", "torchvision.ops.misc.Permute")
def permute(call: Call, input: Value, *dims: Any) -> Value:
    """Axes in another order."""
    if call.module is not None:
        dims = tuple(call.module.dims)  # type: ignore[arg-type]  # torchvision's Permute
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return call.output((input.axes[call.axis(input, dim)] for dim in order), call.view_flow(input))


@rule(torch.transpose, "transpose", "transpose_", torch.swapaxes, "swapaxes", torch.swapdims, "swapdims")
def transpose(call: Call, input: Value, dim0: int, dim1: int) -> Value:
    """Two axes exchanged."""
    axes = list(input.axes)
    first, second = call.axis(input, dim0), call.axis(input, dim1)
    axes[first], axes[second] = axes[second], axes[first]
    return call.output(axes, call.view_flow(input))


@rule(torch.t, "t")
def matrix_transpose(call: Call, input: Value) -> Value:
    """The two axes of a matrix exchanged."""
    return call.output(reversed(input.axes), call.view_flow(input))


@rule(torch.adjoint, "adjoint")
def adjoint(call: Call, input: Value) -> Value:
    """The last two axes exchanged, and complex numbers conjugated."""
    return call.output((*input.axes[:-2], input.axes[-1], input.axes[-2]), call.same_flow(input))


@rule(torch.movedim, "movedim", torch.moveaxis, "moveaxis")
def movedim(call: Call, input: Value, source: int, destination: int) -> Value:
    """One axis moved."""
    axes = list(input.axes)
    moved = axes.pop(call.axis(input, source))
    axes.insert(call.axis(input, destination), moved)
    return call.output(axes, call.view_flow(input))


@rule(torch.unsqueeze, "unsqueeze")
def unsqueeze(call: Call, input: Value, dim: int) -> Value:
    """A new axis of size 1."""
    index = dim % (len(input.axes) + 1)
    new = call.fixed(1, "an axis of size 1 that a view makes")
    return call.output((*input.axes[:index], new, *input.axes[index:]), call.view_flow(input))


@rule(torch.atleast_1d, torch.atleast_2d, torch.atleast_3d)
def of_some_rank(call: Call, input: Value) -> Value:
    """New axes of size 1 until there are so many: in front, and the third one behind."""
    least = int(call.name[len("atleast_")])
    new = [call.fixed(1, "an axis of size 1 that a view makes") for _ in range(least - len(input.axes))]
    behind = new[:1] if least == 3 else []
    return call.output((*new[len(behind) :], *input.axes, *behind), call.view_flow(input))


@rule(torch.squeeze, "squeeze")
def squeeze(call: Call, input: Value, dim: Any = None) -> Value:
    """Axes of size 1 taken away; their sizes are frozen."""
    dims = range(len(input.axes)) if dim is None else (dim if isinstance(dim, (tuple, list)) else (dim,))
    gone = {call.axis(input, d) for d in dims}
    gone = {i for i in gone if input.axes[i].size == 1}
    call.freeze((input.axes[i] for i in gone), "an axis of size 1 that a view drops")
    kept = [i for i in range(len(input.axes)) if i not in gone]
    if dim is None:
        call.freeze(input.axes, "a squeeze of whatever has size 1")
    return call.output((input.axes[i] for i in kept), fl.Same(call.operand(input, drop=gone)))


@rule("expand", "expand_as", torch.broadcast_to)
def expand(call: Call, input: Value, *sizes: Any) -> Value:
    """Axes of size 1 repeated, and new ones in front: each takes on whatever size is asked for."""
    shape = meta_shape(call.meta)
    extra = len(shape) - len(input.axes)
    if len(sizes) == 1 and isinstance(sizes[0], Value):
        return call.output(align(call, [input.axes, sizes[0].axes]), call.same_flow(input))
    paths = _size_paths(call, 1, sizes)
    items = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    old: list[Term | None] = [None] * extra + list(input.axes)
    axes: list[Term] = []
    for term, item, size, path in zip(old, items, shape, paths, strict=True):
        if term is not None and term.size == size:
            axes.append(term)
            if plain(item) != -1:
                call.literal(path, term)
            continue
        if term is not None:
            call.freeze([term], "an axis of size 1 that is expanded")
        axes.append(sized_axis(call, item, size, path))
    return call.output(axes, call.same_flow(input))


@rule(torch.broadcast_tensors)
def broadcast_tensors(call: Call, *tensors: Value) -> tuple[Value, ...]:
    """Each of several tensors as it meets the others."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    axes = align(call, [value.axes for value in given])
    return tuple(call.output(axes, call.same_flow(value), index=i) for i, value in enumerate(given))


@rule("repeat", torch.tile, "tile")
def repeat(call: Call, input: Value, *counts: Any) -> Value:
    """Axes laid several times behind themselves, and new ones in front."""
    paths = _size_paths(call, 1, counts)
    items = counts[0] if len(counts) == 1 and isinstance(counts[0], (tuple, list)) else counts
    shape = meta_shape(call.meta)
    if len(items) < len(shape):  # torch.tile: once along the first axes
        items, paths = (*[1] * (len(shape) - len(items)), *items), [*[()] * (len(shape) - len(items)), *paths]
    old: list[Term | None] = [None] * (len(shape) - len(input.axes)) + list(input.axes)
    axes: list[Term] = []
    for term, item, size, path in zip(old, items, shape, paths, strict=True):
        if term is not None and plain(item) == 1:
            axes.append(term)
        elif term is None or term.size == 1:
            call.freeze([] if term is None else [term], "an axis of size 1 that is repeated")
            axes.append(sized_axis(call, item, size, path))
        else:
            count = call.fixed(size // term.size, "how often an axis is repeated")
            axes.append(product((count, term)))
    return call.output(axes, call.same_flow(input))


@rule(torch.repeat_interleave, "repeat_interleave")
def repeat_interleave(
    call: Call, input: Value, repeats: Any = None, dim: int | None = None, *, output_size: Any = None
) -> Value:
    """Each position several times in a row: key and value heads for groups of query heads."""
    if repeats is None:  # the input says how often each of its places is put out
        call.freeze(input.axes, _AS_OFTEN)
        return call.output((call.fixed(len(call.meta), _AS_OFTEN),))
    if isinstance(repeats, Value) or dim is None:
        raise RuleDeclined("repeated by a tensor, or over all axes")
    index = call.axis(input, dim)
    count = call.fixed(meta_shape(call.meta)[index] // input.axes[index].size, "how often an axis is repeated")
    repeated = product((input.axes[index], count))
    if output_size is not None:
        call.literal(("kwargs", "output_size"), repeated)
    return call.output((*input.axes[:index], repeated, *input.axes[index + 1 :]), call.same_flow(input))


@rule(nn.PixelShuffle, F.pixel_shuffle)
def pixel_shuffle(call: Call, input: Value, upscale_factor: int = 1) -> Value:
    """(..., C r r, H, W) -> (..., C, H r, W r)."""
    factor = call.module.upscale_factor if isinstance(call.module, nn.PixelShuffle) else int(plain(upscale_factor))
    offsets = call.fixed(factor * factor, "offsets of a pixel shuffle")
    channels = call.space(input.axes[-3].size // offsets.size)
    call.same(input.axes[-3], product((channels, offsets)), "a pixel shuffle that cuts across its axes")
    call.freeze(input.axes[-2:], "positions of a pixel shuffle")
    positions = [call.fixed(size, "positions of a pixel shuffle") for size in meta_shape(call.meta)[-2:]]
    return call.output((*input.axes[:-3], channels, *positions), call.same_flow(input))


@rule(nn.PixelUnshuffle, F.pixel_unshuffle)
def pixel_unshuffle(call: Call, input: Value, downscale_factor: int = 1) -> Value:
    """(..., C, H r, W r) -> (..., C r r, H, W)."""
    shape = meta_shape(call.meta)
    offsets = call.fixed(shape[-3] // input.axes[-3].size, "offsets of a pixel shuffle")
    call.freeze(input.axes[-2:], "positions of a pixel shuffle")
    positions = [call.fixed(size, "positions of a pixel shuffle") for size in shape[-2:]]
    channels = product((input.axes[-3], offsets))
    return call.output((*input.axes[:-3], channels, *positions), call.same_flow(input))


@rule(nn.ChannelShuffle, torch.channel_shuffle, F.channel_shuffle)
def channel_shuffle(call: Call, input: Value, groups: int = 1) -> Value:
    """(N, g w, ...) -> (N, w g, ...)."""
    count = call.module.groups if isinstance(call.module, nn.ChannelShuffle) else int(plain(groups))
    sizes = (count, input.axes[1].size // count)
    group, width = call.factor(input.axes[1], sizes, ("groups", "group_width"))
    if call.module is not None:
        call.attribute("groups", group)
    else:
        call.literal(call.argument_path(1, "groups"), group)
    return call.output((input.axes[0], product((width, group)), *input.axes[2:]), call.same_flow(input))


@rule("unfold")
def windows(call: Call, input: Value, dimension: int, size: Any, step: Any) -> Value:
    """Windows along an axis, whose places get an axis of their own at the end."""
    index = call.axis(input, dimension)
    call.freeze([input.axes[index]], "an axis that windows move along")
    shape = meta_shape(call.meta)
    count, width = (call.fixed(shape[i], "an axis that windows move along") for i in (index, -1))
    axes = (*input.axes[:index], count, *input.axes[index + 1 :], width)
    return call.output(axes, fl.Same(call.operand(input, drop=[index])))
