"""What a forward does to its model is put back, in containers of any class too."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.model.untouched import untouched
from tests.rewrite.small_models import Forward


class Frozen(OrderedDict[str, Any]):
    """A dictionary that refuses to be changed, as the configurations of some libraries are."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("frozen")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        OrderedDict.__init__(self)
        for key, value in dict(*args, **kwargs).items():
            OrderedDict.__setitem__(self, key, value)

    __setitem__ = update = clear = pop = setdefault = __delitem__ = _refuse


class Own(list[int]):
    """A list with an `extend` of its own."""

    def extend(self, items: Any) -> None:
        raise TypeError("not so")


def test_a_model_with_a_frozen_configuration_is_traced() -> None:
    model: Any = Forward(lambda m, x: m.last(torch.tanh(m.first(x))), first=nn.Linear(3, 4), last=nn.Linear(4, 2))
    model.config = Frozen(width=4, kinds=["a", "b"])
    graph, x = gg.trace(model, torch.randn(2, 3)), torch.randn(2, 3)
    assert torch.equal(graph.module(x), model(x))
    assert dict(model.config) == {"width": 4, "kinds": ["a", "b"]}


@pytest.mark.parametrize(
    "held",
    [
        [1, 2], {"a": 1}, {1, 2}, [], {}, OrderedDict(b=1, a=2), defaultdict(list, a=[1]), Frozen(a=1, b=2),
        Own([1, 2]),
    ],
    ids=repr,
)  # fmt: skip
def test_containers_hold_again_what_they_held(held: Any) -> None:
    model: Any = nn.Module()
    model.held = held
    before = list(held.items()) if isinstance(held, dict) else list(held)
    with untouched(model) as state:
        assert state.changed() == []
        if isinstance(held, dict):
            kind: Any = OrderedDict if isinstance(held, OrderedDict) else dict
            kind.clear(held)
            kind.__setitem__(held, "new", 3)
        elif isinstance(held, list):
            held.append(3)
        else:
            held.add(3)
        assert state.changed() == ["held"]
    assert model.held is held
    assert (list(held.items()) if isinstance(held, dict) else list(held)) == before


def test_the_order_of_items_is_put_back() -> None:
    model: Any = nn.Module()
    model.held = OrderedDict(a=1, b=2)
    with untouched(model):
        model.held.move_to_end("a")
    assert list(model.held) == ["a", "b"]
