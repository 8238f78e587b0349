"""The numbers of attributes are read off the grown graph."""

from __future__ import annotations

import copy

import torch

import graphgrow as gg
from graphgrow.own_class.marked import mark
from graphgrow.own_class.numbers import numbers_of
from tests.own_class.models import Decoder

TOKENS = torch.randint(0, 11, (2, 5))


def test_heads_and_the_place_of_a_split_follow() -> None:
    model = Decoder().eval()
    marked = copy.deepcopy(model)
    mark(marked)
    grown = gg.apply(gg.trace(model, TOKENS), "add-heads(layers.0.attention, extra=2)")  # 2 heads, of 4 channels
    found = {str(origin): n for origin, n in numbers_of(grown.module, gg.trace(marked, TOKENS).module).items()}
    assert found["layers.0.attention.heads"] == 4
    assert found["layers.0.attention.inner"] == 16
    assert found["layers.0.attention.qkv.out_features"] == 48
    assert (found["layers.1.attention.heads"], found["layers.1.attention.inner"]) == (2, 8)
    assert found["layers.0.eps"] == 1e-5
