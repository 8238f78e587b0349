"""Broadcasting of operands of any two shapes that fit."""

from __future__ import annotations

import operator

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphgrow.rulecheck.square import Square
from tests.effort import examples
from tests.ops.probe import Probe, drawer, normal_tensor, op

SHAPES = hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=3, min_side=1, max_side=3)


@examples(25)
@given(shapes=SHAPES, data=st.data())
def test_whatever_broadcasts_is_exact_or_frozen(shapes: hnp.BroadcastableShapes, data: st.DataObject) -> None:
    draw = drawer(data)
    target = (operator.add, operator.mul)[draw(0, 1)]
    x, y = (normal_tensor(draw, *shape) for shape in shapes.input_shapes)
    square = Square.of(Probe(lambda m: op(target, m.x, m.y), {"x": x, "y": y}), (target,))
    square.check_all(draw)


@examples(15)
@given(shapes=SHAPES)
def test_an_axis_of_size_1_that_is_stretched_is_frozen(shapes: hnp.BroadcastableShapes) -> None:
    tensors = [normal_tensor(lambda low, high: low, *shape) for shape in shapes.input_shapes]
    square = Square.of(Probe(lambda m: m.x + m.y, {"x": tensors[0], "y": tensors[1]}), (operator.add,))
    frozen = square.frozen()
    rank = len(shapes.result_shape)
    for name, shape in zip("xy", shapes.input_shapes, strict=True):
        for axis, size in enumerate(shape):
            stretched = size != shapes.result_shape[rank - len(shape) + axis]
            assert (f"{name}.{axis}" in frozen) is stretched
