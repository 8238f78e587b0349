"""Flat modules call the model as it was called, and every tensor gets a readable name of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from graphgrow.errors import ExportError
from graphgrow.export.flat import FlatModule, input_names, output_names, tensors_of


class Nested(nn.Module):
    def forward(self, x: Any, pair: Any, *more: Any, scale: float = 1.0, **named: Any) -> Any:
        total = x + pair["a"] + pair["b"][0] + more[0] + named["mask"]
        return {"sum": total * scale, "rest": (None, [x])}


ONE = torch.ones(2)
ARGS = (ONE, {"a": 2 * ONE, "b": [3 * ONE]}, 4 * ONE)
KWARGS = {"scale": 0.5, "mask": 5 * ONE}


def test_nested_inputs_come_back_in_their_places() -> None:
    flat = FlatModule(Nested(), ARGS, KWARGS)
    total, rest = flat(*tensors_of(ARGS, KWARGS))
    assert total.tolist() == [7.5, 7.5]
    assert rest.tolist() == [1.0, 1.0]


def test_names_follow_signature_and_keys() -> None:
    assert input_names(Nested(), ARGS, KWARGS) == ["x", "pair_a", "pair_b_0", "more_0", "mask"]


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (ONE, ["output"]),
        ((ONE, ONE), ["output_0", "output_1"]),
        ({"logits": ONE, "x": ONE, "n": 3}, ["logits", "x_out"]),
        ({"a": (ONE, None, ONE)}, ["a_0", "a_2"]),
        ({"a.b": ONE, "a-b": ONE}, ["a_b", "a_b_out"]),
    ],
)
def test_output_names(output: Any, names: list[str]) -> None:
    assert output_names(output, ["x"]) == names


@pytest.mark.parametrize("output", [None, 3, (), {"loss": object()}])
def test_outputs_without_tensors_or_with_foreign_objects_are_refused(output: Any) -> None:
    with pytest.raises(ExportError, match="wrap"):
        output_names(output, [])
