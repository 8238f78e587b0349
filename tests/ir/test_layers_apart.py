"""Two layers are told apart by all that a call of them may depend on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir.layers_apart import layers_apart


class Layer(nn.Module):
    """A leaf of a user's own, which keeps numbers in a configuration, a function, and tensors in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.act, self.own = SimpleNamespace(width=3, rates=[0.5, {"a": 1}]), F.relu, [torch.zeros(2)]
        self.sizes, self.names, self.drop = (3, 4), {"x", "y"}, nn.Dropout(0.1)
        self.first, self.itself = nn.Linear(3, 4), SimpleNamespace()
        self.itself.itself = self.itself
        self.register_buffer("mean", torch.zeros(3))


def pair() -> tuple[Any, Any]:
    torch.manual_seed(0)
    layer = Layer()
    return layer, copy.deepcopy(layer)


@pytest.mark.parametrize(
    "layer", [Layer(), nn.LSTM(3, 4), nn.BatchNorm2d(3), nn.TransformerEncoderLayer(4, 2), nn.Conv2d(3, 4, 3)], ids=repr
)
def test_a_copy_is_no_other(layer: nn.Module) -> None:
    assert layers_apart(layer, copy.deepcopy(layer)) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m.config, "width", 4), "its `config`, of SimpleNamespace, is another one in the class"),
        (lambda m: m.config.rates[1].update(a=2), "its `config`"),
        (lambda m: setattr(m, "act", F.gelu), "its `act`, of function, is another one in the class"),
        (lambda m: m.own[0].fill_(1), "its `own` is "),
        (lambda m: setattr(m, "sizes", (3, 5)), r"its `sizes` is (3, 5) in the class, not (3, 4)"),
        (lambda m: m.names.add("z"), "its `names` is "),
        (lambda m: setattr(m, "more", 1), "its `more` is there in one of them alone"),
        (lambda m: delattr(m, "sizes"), "its `sizes` is there in one of them alone"),
        (lambda m: setattr(m.drop, "p", 0.2), "in its `drop`, its `p` is 0.2 in the class, not 0.1"),
        (lambda m: m.first.weight.data.mul_(-1), "in its `first`, its `weight` has other values in the class"),
        (
            lambda m: setattr(m.first, "bias", None),
            "in its `first`, its `bias` is None in the class, not torch.float32 of (4,)",
        ),
        (lambda m: setattr(m, "first", nn.Identity()), "in its `first`, it is a Identity in the class, not a Linear"),
        (lambda m: m.mean.add_(1), "its `mean` has other values"),
        (lambda m: setattr(m, "mean", m.mean.double()), "its `mean` is torch.float64 of (3,) in the class, not "),
        (lambda m: m.register_buffer("more", None), "its `more` is there in one of them alone"),
        (lambda m: setattr(m, "more", nn.ReLU()), "its `more` is there in one of them alone"),
        (lambda m: m.eval(), "its `training` is False in the class, not True"),
    ],
)
def test_each_difference_is_found(change: Callable[[Any], object], said: str) -> None:
    layer, other = pair()
    change(other)
    assert said in layers_apart(layer, other, "in the class")


def test_modes_and_hooks_need_not_count() -> None:
    layer, other = pair()
    other.register_forward_hook(lambda *_: None)
    other.eval()
    assert layers_apart(layer, other, modes=False) == ""


def test_objects_of_no_known_kind_are_the_same_where_they_are_one() -> None:
    layer, other = pair()
    layer.source, other.source = torch.Generator(), torch.Generator()
    assert "its `source`" in layers_apart(layer, other)
    other.source = layer.source
    assert layers_apart(layer, other) == ""
