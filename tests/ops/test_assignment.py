"""Writing into a tensor, or into a part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from graphgrow.layers import CopyInOneMode, set_item
from tests.ops.probe import Draw, Probe, normal_tensor
from tests.ops.square import Case
from tests.ops.squares import squares

CHOSEN = "free>free zero>free|zero mean>free|mean copy>copy share>share"  # by what the other operand holds
OTHERS = "free>free|mean|zero zero>free|mean|zero mean>free|mean|zero copy>copy|share share>copy|share"
LEFT = "free>free zero>free mean>free copy>copy"  # beside a number
ALONE = "free>free zero>free mean>free copy>copy"


def _written(key: Any, shape: Callable[[int, int, int], tuple[int, ...]]) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        a, b, c = draw(2, 3), 3, draw(2, 4)

        def run(m: Any) -> Any:
            copy = m.x.clone()
            copy[key] = m.y
            return copy

        return Probe(run, {"x": normal_tensor(draw, a, b, c), "y": normal_tensor(draw, *shape(a, b, c))})

    return build


def _number(draw: Draw) -> nn.Module:
    def run(m: Any) -> Any:
        copy = m.x.clone()
        copy[:, 0] = 2.0
        return copy

    return Probe(run, {"x": normal_tensor(draw, 3, 3, 2)})


def _at_places(
    key: Callable[[Any], Any], shape: Callable[[int, int, int], tuple[int, ...]] | None = None
) -> Callable[[Draw], nn.Module]:
    """Written at places i below 3 of x (3, b, 3): y, or a number."""

    def build(draw: Draw) -> nn.Module:
        b = draw(2, 4)

        def run(m: Any) -> Any:
            copy = m.x.clone()
            copy[key(m)] = m.y if shape else 2.0
            return copy

        sources = {"x": normal_tensor(draw, 3, b, 3)}
        if shape:
            sources["y"] = normal_tensor(draw, *shape(3, b, 3))
        return Probe(run, sources, None, {"i": torch.tensor([2, 0])})

    return build


def _copied(shape: Callable[[int, int], tuple[int, ...]]) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        a, b = draw(2, 3), draw(2, 4)
        x, y = normal_tensor(draw, a, b), normal_tensor(draw, *shape(a, b))
        return Probe(lambda m: m.x.clone().copy_(m.y), {"x": x, "y": y})

    return build


def _copied_in_one_mode(draw: Draw) -> nn.Module:
    a, b = draw(2, 3), draw(2, 4)
    x, y = normal_tensor(draw, a, b), normal_tensor(draw, a, b)
    return Probe(lambda m: m.op(m.x.clone(), m.y), {"x": x, "y": y}, {"op": CopyInOneMode()})


def _both(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, CHOSEN)


CASES = [
    Case(("copy_",), _copied(lambda a, b: (a, b)), {"x.0": OTHERS, "x.1": OTHERS}),
    Case((CopyInOneMode,), _copied_in_one_mode, {"x.0": CHOSEN, "x.1": CHOSEN}),
    Case((set_item,), _written((slice(None), 0), lambda a, b, c: (a, c)), {"x.0": CHOSEN, "x.2": CHOSEN}),
    Case((set_item,), _written((..., 1), lambda a, b, c: (a, b)), {"x.0": CHOSEN, "x.1": CHOSEN}, "ellipsis"),
    Case((set_item,), _written((slice(None), slice(1, 3)), lambda a, b, c: (a, 2, c)), {"x.0": CHOSEN, "x.2": CHOSEN},
         "slice"),
    Case((set_item,), _written((slice(None), slice(0, 2)), lambda a, b, c: (c,)), {"x.0": ALONE, "x.2": CHOSEN},
         "broadcast"),
    Case((set_item,), _written((slice(None), None, 1), lambda a, b, c: (a, 1, c)), {"x.0": CHOSEN, "x.2": CHOSEN},
         "new-axis"),
    Case((set_item,), _at_places(lambda m: m.i), {"x.1": LEFT, "x.2": LEFT}, "rows"),
    Case((set_item,), _at_places(lambda m: m.i, lambda a, b, c: (2, b, c)), _both("x.1", "x.2"), "rows-of"),
    Case((set_item,), _at_places(lambda m: m.i, lambda a, b, c: (c,)), {"x.1": ALONE, "x.2": CHOSEN}, "rows-alike"),
    Case((set_item,), _at_places(lambda m: (m.i, 1, slice(None)), lambda a, b, c: (2, c)), {"x.2": CHOSEN}, "and-one"),
    Case((set_item,), _at_places(lambda m: (..., m.i), lambda a, b, c: (a, b, 2)), _both("x.0", "x.1"), "end"),
    Case((set_item,), _at_places(lambda m: (slice(1), slice(None), m.i), lambda a, b, c: (b, 2)), {"x.1": CHOSEN},
         "behind-a-part"),
    Case((set_item,), _at_places(lambda m: (slice(None), [0, 1]), lambda a, b, c: (a, 1, c)),
         {"x.0": CHOSEN, "x.2": CHOSEN}, "list"),
    Case((set_item,), _at_places(lambda m: (m.i[:, None], m.i // 2), lambda a, b, c: (2, 2, c)),
         {"x.2": CHOSEN}, "rows-and-columns"),
    Case((set_item,), _number, {"x.0": LEFT, "x.2": LEFT}, "number"),
]  # fmt: skip


test_square = squares(CASES, 4)
