"""Random models run, print as code that makes them again, and leave no operator unknown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree

import graphgrow as gg
from tests.effort import examples
from tests.properties import blocks, models, written
from tests.properties.written import Model

NAMES: dict[str, Any] = {"nn": nn, "torch": torch, **vars(blocks), **vars(written), **vars(models)}


@pytest.mark.parametrize("family", models.FAMILIES)
@examples(6)
@given(data=st.data())
def test_a_model_prints_as_the_code_that_makes_it(family: str, data: st.DataObject) -> None:
    model = data.draw(models.FAMILIES[family])
    again: Model = eval(repr(model), dict(NAMES))
    assert repr(again) == repr(model)
    assert [n for n, _ in again.module.named_parameters()] == [n for n, _ in model.module.named_parameters()]
    outputs = [m.module(*(m.inputs if isinstance(m.inputs, tuple) else (m.inputs,))) for m in (model, again)]
    for a, b in zip(*map(pytree.tree_leaves, outputs), strict=True):
        assert torch.equal(a, b)
    assert not gg.trace(*model).analysis.unknown
