"""Constants: from sizes, or after the pattern of another tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

UNREAD = "free>- zero>- mean>- copy>- share>-"  # only dtype and device are taken


def _like(target: Any, *arguments: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        return Probe(lambda m: op(target, m.x, *arguments), {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))})

    return build


def _filled(target: Any, *arguments: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(
        lambda m: op(target, m.x.clone(), *arguments), {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))}
    )


def _filled_with_an_entry(draw: Draw) -> nn.Module:
    sources = {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))}
    return Probe(lambda m: op(torch.fill, m.x, m.y.sum()), {**sources, "y": normal_tensor(draw, 1)})


NULL = "free>null zero>null mean>null copy>null share>null"  # zeros, whatever grows
EVEN = "free>even zero>even mean>even copy>even share>even"


def _sized(name: str, *arguments: Any, form: str = "apart", method: bool = False) -> Callable[[Draw], nn.Module]:
    """A constant of x's sizes, added to x: (b, c), with b read off x and c as a number of the source."""

    def build(draw: Draw) -> nn.Module:
        rows, width = draw(2, 4), draw(2, 4)

        def run(m: Any) -> Any:
            function = getattr(m.x if method else torch, name)
            options = {} if method else {"dtype": torch.float64}
            if form == "by-name":
                return m.x + function(size=(m.x.size(0), m.x.size(1)), **options)
            sizes = {"apart": (m.x.size(0), width), "packed": ((m.x.shape[0], width),), "whole": (m.x.size(),)}[form]
            return m.x + function(*sizes, *arguments, **options)

        return Probe(run, {"x": normal_tensor(draw, rows, width)})

    return build


def _spaced(draw: Draw) -> nn.Module:
    """x by numbers from one to another, as many as it has rows, which then cannot grow."""
    x = normal_tensor(draw, draw(2, 4), draw(2, 4))
    return Probe(lambda m: op(torch.linspace, -1.0, 1.0, m.x.shape[0]).unsqueeze(-1) * m.x, {"x": x})


CASES = [
    Case((torch.zeros_like,), _like(torch.zeros_like), {"x.0": NULL, "x.1": NULL}),
    Case((torch.ones_like,), _like(torch.ones_like), {"x.0": EVEN, "x.1": EVEN}),
    Case((torch.full_like,), _like(torch.full_like, 1.5), {"x.0": EVEN, "x.1": EVEN}),
    *(Case((target,), _like(target, (3, 2)), {"x.0": UNREAD, "x.1": UNREAD}) for target in ("new_zeros", "new_ones")),
    Case(("new_full",), _like("new_full", (3,), 2.5), {"x.0": UNREAD, "x.1": UNREAD}),
    Case(("fill_",), _filled("fill_", 1.5), {"x.0": EVEN, "x.1": EVEN}),
    Case((torch.fill,), _filled(torch.fill, 1.5), {"x.0": EVEN, "x.1": EVEN}),
    Case((torch.fill,), _filled_with_an_entry, {"x.0": EVEN, "x.1": EVEN}, "an-entry"),
    Case(("zero_",), _filled("zero_"), {"x.0": NULL, "x.1": NULL}),
    Case((torch.linspace,), _spaced, {}),
    Case(("new_tensor",), _like("new_tensor", [1.0, 2.0]), {"x.0": UNREAD, "x.1": UNREAD}),
    *(Case((torch.zeros,), _sized("zeros", form=form), {"x.0": NULL, "x.1": NULL}, form)
      for form in ("apart", "packed", "whole", "by-name")),
    Case((torch.ones,), _sized("ones"), {"x.0": EVEN, "x.1": EVEN}),
    Case((torch.full,), _sized("full", 2.0, form="packed"), {"x.0": EVEN, "x.1": EVEN}),
    Case(("new_zeros",), _sized("new_zeros", method=True), {"x.0": NULL, "x.1": NULL}, "sized"),
    Case(("new_full",), _sized("new_full", 2.0, form="packed", method=True), {"x.0": EVEN, "x.1": EVEN}, "sized"),
]  # fmt: skip


test_square = squares(CASES, 4)
