"""Views: regrouping of axes, checked by where each entry really goes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graphgrow.ops.registry import class_name
from graphgrow.rulecheck.square import Square
from graphgrow.store.names import import_torchvision
from tests.effort import examples
from tests.ops.probe import Draw, Probe, drawer, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

import_torchvision()
Permute = importlib.import_module("torchvision.ops.misc").Permute
LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
TOGETHER = (  # two tensors over one axis, each filled in its own way, in no order
    "free>free|free,mean|free,zero zero>zero|free,zero|mean,zero mean>mean|free,mean|mean,zero "
    "copy>copy|copy,share share>share|copy,share"
)
ONE_EVEN = "free>even,free zero>even,zero mean>even,mean copy>copy,even share>even,share"
EVEN = "free>even zero>even mean>even copy>even share>even"  # one value for all units
PART = "free>free zero>zero mean>mean copy>copy share>share"


def _every(*names: str) -> dict[str, str]:
    return {name: PART if ":" in name else LINEAR for name in names}


def _apply(target: Any, shape: tuple[int, ...], /, *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, *shape)
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(*arguments, **options)})
        return Probe(lambda m: op(target, m.x, *arguments, **options), {"x": x})

    return build


def view(target: Any, shape: tuple[int, ...], /, *arguments: Any, names: str, label: str = "", **options: Any) -> Case:
    """A view of fixed sizes, whose growable axes are named."""
    targets = (target, class_name(target)) if isinstance(target, type) else (target,)
    return Case(targets, _apply(target, shape, *arguments, **options), _every(*names.split()), label)


def _by_sizes(draw: Draw) -> nn.Module:
    """Sizes that the graph computes: (b, n, h d) -> (b, n, h, d)."""
    heads, width = draw(2, 3), draw(2, 3)

    def run(m: Any) -> Any:
        batch, length, channels = m.x.shape
        return m.x.view(batch, length, heads, channels // heads)

    return Probe(run, {"x": normal_tensor(draw, 2, 3, heads * width)})


def _expand_as(draw: Draw) -> nn.Module:
    b, c = draw(2, 4), draw(2, 4)
    sources = {"x": normal_tensor(draw, b, c, 1), "y": normal_tensor(draw, b, c, 3)}
    return Probe(lambda m: op("expand_as", m.x, m.y), sources)


def _broadcast(draw: Draw) -> nn.Module:
    b, c = draw(2, 4), draw(2, 4)
    sources = {"x": normal_tensor(draw, b, c, 1), "y": normal_tensor(draw, b, c, 3)}
    return Probe(lambda m: list(op(torch.broadcast_tensors, m.x, m.y)), sources)


def _view_as(target: str) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        b, c, d = draw(2, 3), draw(2, 3), draw(2, 3)
        return Probe(
            lambda m: op(target, m.x, m.y), {"x": normal_tensor(draw, b, c * d), "y": normal_tensor(draw, b, c, d)}
        )

    return build


CASES = [
    *(Case((target,), _view_as(target), _every("x.0", "x.1:0", "x.1:1")) for target in ("view_as", "reshape_as")),
    view("view", (2, 6), 2, 2, 3, names="x.0 x.1:0 x.1:1"),
    view("view", (4, 3), 12, names="x.0 x.1", label="flat"),
    view("view", (4, 6), 2, 12, names="x.0:0 x.0:1 x.1", label="cut-and-join"),
    view("view", (4, 3, 2), (4, 6), names="x.0 x.1 x.2", label="tuple"),
    view("view", (4, 6), 4, -1, 2, names="x.0 x.1:0 x.1:1", label="minus-one"),
    view("view", (3, 1, 4), 3, 4, names="x.0 x.2", label="drop-one"),
    view("view", (3, 4), 3, 1, 2, 2, names="x.0 x.1:0 x.1:1", label="make-one"),
    view("view", (4, 6), 3, 8, names="", label="across"),
    view("reshape", (2, 3, 4), 2, 12, names="x.0 x.1 x.2"),
    view(torch.reshape, (2, 6), (2, 3, 2), names="x.0 x.1:0 x.1:1"),
    view("view", (2, 6), size=(2, 3, 2), names="x.0 x.1:0 x.1:1", label="by-name"),
    view("reshape", (2, 6), shape=(2, 3, 2), names="x.0 x.1:0 x.1:1", label="by-name"),
    view("expand", (2, 1, 3), size=(-1, 4, 3), names="x.0 x.2", label="by-name"),
    view(torch.reshape, (2, 6), shape=(12,), names="x.0 x.1", label="by-name"),
    Case(("view",), _by_sizes, _every("x.0", "x.1", "x.2:0", "x.2:1"), "computed"),
    *(view(t, (2, 3, 4), 1, names="x.0 x.1 x.2") for t in (torch.flatten, "flatten")),
    view(nn.Flatten, (2, 3, 4), names="x.0 x.1 x.2"),
    view(torch.flatten, (2, 3, 4), 1, 1, names="x.0 x.1 x.2", label="one-axis"),
    *(view(t, (2, 6, 2), 1, (2, 3), names="x.0 x.1:0 x.1:1 x.2") for t in (torch.unflatten, "unflatten")),
    view("unflatten", (2, 6), -1, (3, -1), names="x.0 x.1:0 x.1:1", label="minus-one"),
    view(nn.Unflatten, (2, 6), 1, (2, 3), names="x.0 x.1:0 x.1:1"),
    view(nn.Unflatten, (2, 6), 1, (-1, 3), names="", label="minus-one"),
    view(torch.permute, (2, 3, 4), (2, 0, 1), names="x.0 x.1 x.2"),
    view("permute", (2, 3, 4), 0, -1, 1, names="x.0 x.1 x.2"),
    view(Permute, (2, 3, 4), [1, 2, 0], names="x.0 x.1 x.2"),
    *(view(t, (2, 3, 4), 1, -1, names="x.0 x.1 x.2")
      for t in (torch.transpose, "transpose", torch.swapaxes, "swapaxes", torch.swapdims, "swapdims")),
    *(view(t, (2, 3, 4), names="x.0 x.1 x.2") for t in (torch.ravel, "ravel")),
    *(view(t, (2, 3), names="x.0 x.1") for t in (torch.t, "t")),
    *(view(t, (2, 3, 4), 0, 2, names="x.0 x.1 x.2") for t in (torch.movedim, "movedim", torch.moveaxis, "moveaxis")),
    *(view(t, (2, 3, 4), names="x.0 x.1 x.2") for t in (torch.adjoint, "adjoint")),
    *(view(t, shape, names=" ".join(f"x.{i}" for i in range(len(shape))), label=str(len(shape)))
      for t in (torch.atleast_1d, torch.atleast_2d, torch.atleast_3d) for shape in ((4,), (3, 4), (2, 3, 4))),
    *(view(t, (2, 3), 1, names="x.0 x.1") for t in (torch.unsqueeze, "unsqueeze")),
    *(view(t, (2, 1, 3), 1, names="x.0 x.2") for t in (torch.squeeze, "squeeze")),
    view("squeeze", (2, 1, 3), names="", label="whatever"),
    view("expand", (2, 1, 3), -1, 4, 3, names="x.0 x.2"),
    view("expand", (3,), 2, 3, names="x.0", label="in-front"),
    view(torch.broadcast_to, (2, 1), (2, 3), names="x.0"),
    *(view(t, (2, 1, 3), 1, 4, 2, names="x.0 x.2") for t in ("repeat", "tile")),
    view(torch.tile, (2, 3), (2, 1), names="x.0 x.1"),
    view(torch.tile, (2, 3), (2,), names="x.0 x.1", label="fewer"),
    view("repeat", (3,), 2, 2, names="x.0", label="in-front"),
    *(view(t, (2, 3), 2, 1, names="x.0 x.1") for t in (torch.repeat_interleave, "repeat_interleave")),
    view(torch.repeat_interleave, (2, 3), 2, dim=1, output_size=6, names="x.0 x.1", label="size-restated"),
    *(view(t, (2, 8, 2, 2), 2, names="x.0 x.1:0") for t in (nn.PixelShuffle, F.pixel_shuffle)),
    *(view(t, (2, 3, 4, 4), 2, names="x.0 x.1") for t in (nn.PixelUnshuffle, F.pixel_unshuffle)),
    *(view(t, (2, 6, 2), 3, names="x.0 x.1:0 x.1:1 x.2") for t in (nn.ChannelShuffle, torch.channel_shuffle)),
    view("unfold", (2, 5, 3), 1, 2, 1, names="x.0 x.2"),
    Case(("expand_as",), _expand_as, {"x.0": LINEAR, "x.1": LINEAR, "y.2": EVEN}),
    Case((torch.broadcast_tensors,), _broadcast, {"x.0": TOGETHER, "x.1": TOGETHER, "y.2": ONE_EVEN}),
    Case(("transpose_", torch.transpose, "transpose"),
         lambda d: Probe(lambda m: op("transpose_", m.x.clone(), 1, 2), {"x": normal_tensor(d, 2, 3, 4)}),
         _every("x.0", "x.1", "x.2")),
]  # fmt: skip


test_square = squares(CASES, 2)


def _factors(draw: Draw, size: int) -> list[int]:
    """A random factorisation, ones included."""
    sizes = []
    while size > 1:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        sizes.append(divisors[draw(0, len(divisors) - 1)])
        size //= sizes[-1]
    for _ in range(draw(0, 1)):
        sizes.insert(draw(0, len(sizes)), 1)
    return sizes


@examples(25)
@given(data=st.data())
def test_any_regrouping_is_exact_or_frozen(data: st.DataObject) -> None:
    draw = drawer(data)
    size = (12, 16, 24, 30)[draw(0, 3)]
    shape, other = _factors(draw, size), _factors(draw, size)
    assert math.prod(shape) == math.prod(other)
    _check_every_growth(Probe(lambda m: m.x.reshape(*other), {"x": normal_tensor(draw, *shape)}), "reshape", draw)


@examples(15)
@given(data=st.data())
def test_a_chain_of_regroupings_and_permutations_is_exact_or_frozen(data: st.DataObject) -> None:
    """The axes of two views of one tensor refine each other: (a b, c) -> (a, b c) -> ..."""
    draw = drawer(data)
    size = (12, 16, 24)[draw(0, 2)]
    first, second, third = (_factors(draw, size) for _ in range(3))
    orders = [data.draw(st.permutations(range(len(shape)))) for shape in (first, second)]

    def run(m: Any) -> Any:
        seen = m.x.permute(*orders[0]).reshape(*second).permute(*orders[1])
        return seen.reshape(*third)

    _check_every_growth(Probe(run, {"x": normal_tensor(draw, *first)}), "reshape", draw)


def _check_every_growth(probe: nn.Module, target: str, draw: Draw) -> None:
    """Whatever the rule admits is what the operator does; the last node of that target is compared."""
    square = Square.of(probe, (target,), last=True)
    square.check_all(draw)
