"""Convolutions of one, two and three dimensions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn import functional as F

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

CONVOLUTIONS: list[Any] = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED: list[Any] = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
TRANSPOSED_FUNCTIONS: list[Any] = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]
FUNCTIONS: list[Any] = [F.conv1d, F.conv2d, F.conv3d]

BATCH = "free>free zero>free mean>mean copy>copy"
SUMMED = "free>- zero>- mean>- copy>- share>-"
ROWS = "free>free zero>free|zero mean>free|mean copy>copy share>share"


def _rank(target: Any) -> int:
    return int(target.__name__[-2])


def _positions(draw: Draw, rank: int) -> list[int]:
    return [draw(3, 5)] + [draw(3, 4)] * (rank - 1)


def _module(target: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    """A layer of drawn kernel, stride and padding mode; its kernel moves along every axis."""

    def build(draw: Draw) -> nn.Module:
        inputs, outputs = draw(2, 4), draw(2, 4)
        kernel, stride = draw(2, 3), draw(1, 2)
        mode = {} if target in TRANSPOSED else {"padding_mode": ("zeros", "reflect", "circular")[draw(0, 2)]}
        layer = target(inputs, outputs, kernel, stride=stride, padding=draw(0, kernel // 2), **mode, **options)
        return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, inputs, *_positions(draw, _rank(target)))},
                     {"op": layer})  # fmt: skip

    return build


def _unbatched(draw: Draw) -> nn.Module:
    layer = nn.Conv1d(3, 2, 3, groups=1)
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 3, 4)}, {"op": layer})


def _grouped(target: Any, groups: int, width: int, out_width: int) -> Callable[[Draw], nn.Module]:
    """`groups` groups, each from `width` to `out_width` channels."""

    def build(draw: Draw) -> nn.Module:
        layer = target(groups * width, groups * out_width, draw(2, 3), groups=groups)
        x = normal_tensor(draw, 2, groups * width, *_positions(draw, _rank(target)))
        return Probe(lambda m: m.op(m.x), {"x": x}, {"op": layer})

    return build


def _transposed_function(target: Any, groups: int) -> Callable[[Draw], nn.Module]:
    """x (2, groups * 2, ...) by a weight z to groups * 3 channels, plus y."""

    def build(draw: Draw) -> nn.Module:
        positions, kernel = _positions(draw, _rank(target)), [draw(2, 2)] * _rank(target)
        sources = {
            "x": normal_tensor(draw, 2, 2 * groups, *positions),
            "y": normal_tensor(draw, 3 * groups),
            "z": normal_tensor(draw, 2 * groups, 3, *kernel),
        }
        return Probe(lambda m: op(target, m.x, m.z, m.y, groups=groups), sources)

    return build


def _still(target: Any, kernel: tuple[int, ...], **options: Any) -> Callable[[Draw], nn.Module]:
    """A layer whose kernel has size 1 along some axes."""

    def build(draw: Draw) -> nn.Module:
        layer = target(draw(2, 4), draw(2, 3), kernel, **options)
        x = normal_tensor(draw, 2, layer.in_channels, *_positions(draw, len(kernel)))
        return Probe(lambda m: m.op(m.x), {"x": x}, {"op": layer})

    return build


def _still_function(target: Any, *settings: Any) -> Callable[[Draw], nn.Module]:
    """x (2, 3, ...) by a weight (3, 3, 1, ...), with the settings behind the bias."""

    def build(draw: Draw) -> nn.Module:
        sources = {
            "x": normal_tensor(draw, 2, 3, *_positions(draw, _rank(target))),
            "w": normal_tensor(draw, 3, 3, *[1] * _rank(target)),
            "b": normal_tensor(draw, 3),
        }
        return Probe(lambda m: op(target, m.x, m.w, m.b, *settings), sources)

    return build


def _sized(draw: Draw) -> nn.Module:
    """A transposed convolution that is told which of two sizes it puts out."""
    layer = nn.ConvTranspose1d(draw(2, 4), draw(2, 3), 3, stride=2, padding=1)
    x = normal_tensor(draw, 2, layer.in_channels, 4)
    return Probe(lambda m: m.op(m.x, output_size=[7 + m.x.shape[2] // 4]), {"x": x}, {"op": layer})


def _grouped_residual(draw: Draw) -> nn.Module:
    """x + conv(x): the width of a group is read and, as another axis of the same weight, written."""
    layer = nn.Conv1d(6, 6, 3, padding=1, groups=2)
    return Probe(lambda m: m.op(m.x) + m.x, {"x": normal_tensor(draw, 2, 6, 4)}, {"op": layer})


def _function(target: Any, groups: int, unbatched: bool = False) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        width, outputs = draw(2, 3), draw(2, 3)
        positions = _positions(draw, _rank(target))
        batch = [] if unbatched else [2]
        sources = {
            "x": normal_tensor(draw, *batch, groups * width, *positions),
            "w": normal_tensor(draw, groups * outputs, width, *[2] * len(positions)),
            "b": normal_tensor(draw, groups * outputs),
        }
        return Probe(lambda m: op(target, m.x, m.w, m.b, groups=groups), sources)

    return build


PLAIN = {"x.0": BATCH, "x.1": SUMMED, "op.bias.0": ROWS}
# The axis of groups comes out as filters, bias and input hold it.
WITHIN = "free>- zero>- mean>- copy>- share>-"
ROWS_WITHIN = "free>free zero>free|zero mean>free|mean copy>copy share>share"
CHANNELS = "free>free|zero zero>free|zero mean>free|zero copy>copy|share share>share"
GROUPED = {"x.0": BATCH, "x.1:0": CHANNELS, "x.1:1": WITHIN, "op.bias.0:1": ROWS_WITHIN}
# What a group reads and what it writes are one axis: it comes out as the filters and the bias hold it.
RESIDUAL = "free>free|mean|zero zero>free|mean|zero mean>free|mean|zero copy>copy|share share>copy|share"

CASES = [
    *(Case((target,), _module(target), PLAIN) for target in CONVOLUTIONS + TRANSPOSED),
    Case((nn.Conv1d,), _unbatched, {"x.0": SUMMED, "op.bias.0": ROWS}, "unbatched"),
    *(Case((target,), _grouped(target, 2, 2, 3), GROUPED, "grouped") for target in CONVOLUTIONS),
    *(Case((target,), _grouped(target, 3, 1, 1), {"x.0": BATCH, "x.1": CHANNELS}, "depthwise")
      for target in CONVOLUTIONS + TRANSPOSED),
    *(Case((target,), _grouped(target, 3, 1, 2), {"x.0": BATCH, "x.1": CHANNELS, "op.bias.0:1": ROWS_WITHIN},
           "multiplier")
      for target in CONVOLUTIONS),
    *(Case((target,), _grouped(target, 3, 2, 1), {"x.0": BATCH, "x.1:0": CHANNELS, "x.1:1": WITHIN}, "funnel")
      for target in CONVOLUTIONS),
    *(Case((target,), _grouped(target, 2, 2, 3),
           {"x.0": BATCH, "x.1:0": CHANNELS, "x.1:1": WITHIN, "op.bias.0:1": ROWS_WITHIN}, "grouped")
      for target in TRANSPOSED),
    *(Case((target,), _transposed_function(target, 1), {"x.0": BATCH, "x.1": SUMMED, "y.0": ROWS})
      for target in TRANSPOSED_FUNCTIONS),
    Case((F.conv_transpose2d,), _transposed_function(F.conv_transpose2d, 2),
         {"x.0": BATCH, "x.1:0": CHANNELS, "x.1:1": WITHIN, "y.0:1": ROWS_WITHIN}, "grouped"),
    *(Case((target,), _function(target, 1), {"x.0": BATCH, "x.1": SUMMED, "b.0": ROWS}) for target in FUNCTIONS),
    *(Case((target,), _function(target, 2), {"x.0": BATCH, "x.1:0": CHANNELS, "x.1:1": WITHIN, "b.0:1": ROWS_WITHIN},
           "grouped") for target in FUNCTIONS),
    Case((F.conv1d,), _function(F.conv1d, 2, True), {"x.0:0": CHANNELS, "x.0:1": WITHIN, "b.0:1": ROWS_WITHIN},
         "unbatched"),
    Case((nn.Conv1d,), _still(nn.Conv1d, (1,)), {**PLAIN, "x.2": BATCH}, "still"),
    Case((nn.Conv2d,), _still(nn.Conv2d, (1, 3), padding=(0, 1)), {**PLAIN, "x.2": BATCH}, "still in height"),
    Case((nn.Conv2d,), _still(nn.Conv2d, (1, 1), stride=(2, 1)), {**PLAIN, "x.3": BATCH}, "still in width"),
    Case((nn.Conv2d,), _still(nn.Conv2d, (1, 1), padding=1), PLAIN, "padded"),
    Case((nn.Conv1d,), _still(nn.Conv1d, (1,), padding="same"), {**PLAIN, "x.2": BATCH}, "same"),
    Case((nn.ConvTranspose2d,), _still(nn.ConvTranspose2d, (1, 2)), {**PLAIN, "x.2": BATCH}, "still in height"),
    Case((nn.ConvTranspose1d,), _still(nn.ConvTranspose1d, (1,), stride=2, output_padding=1), PLAIN, "spread"),
    Case((nn.ConvTranspose1d,), _sized, PLAIN, "sized"),
    Case((F.conv2d,), _still_function(F.conv2d, 1, "valid"),
         {"x.0": BATCH, "x.1": SUMMED, "x.2": BATCH, "x.3": BATCH, "b.0": ROWS}, "still"),
    Case((F.conv1d,), _still_function(F.conv1d, (2,)), {"x.0": BATCH, "x.1": SUMMED, "b.0": ROWS}, "strided"),
    Case((F.conv_transpose1d,), _still_function(F.conv_transpose1d, (1,), (0,)),
         {"x.0": BATCH, "x.1": SUMMED, "x.2": BATCH, "b.0": ROWS}, "still"),
    Case((nn.Conv1d,), _grouped_residual, {"x.0": BATCH, "x.1:0": CHANNELS, "x.1:1": RESIDUAL}, "grouped-residual"),
]  # fmt: skip


test_square = squares(CASES, 2)
