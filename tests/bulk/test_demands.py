"""Which groups must grow, read off the axes of both models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.bulk.demands import Demand, demands, listed
from graphgrow.models import densenet, gpt
from tests.bulk.families import Llama


def asked(small: nn.Module, large: nn.Module, example: torch.Tensor) -> list[Demand]:
    return demands(gg.trace(small, example), gg.trace(large, example), {})


class Two(nn.Module):
    """Two widths, which are one axis where they are equal; and attention only where there is more than one head."""

    def __init__(self, left: int, right: int, heads: int = 1) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, left), nn.Linear(3, right)
        self.last_left, self.last_right = nn.Linear(left, 2), nn.Linear(right, 2)
        self.joined, self.heads = left == right, heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.left(x), self.right(x)
        if self.joined:
            a = a + b
        if self.heads > 1:
            a = a.unflatten(-1, (self.heads, -1)).softmax(-1).flatten(-2)
        return self.last_left(a) + self.last_right(b)


ROWS = torch.zeros(5, 3)


def test_equal_models_ask_for_nothing() -> None:
    assert asked(Two(4, 4), Two(4, 4), ROWS) == []


def test_a_width_is_asked_for_once() -> None:
    found = asked(Two(4, 4), Two(6, 6), ROWS)
    assert found == [Demand("left", 2, "", "left.weight")]


def test_the_parts_of_a_packed_and_of_a_concatenated_axis() -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    found = {demand.group: demand.extra for demand in asked(gpt.gpt(heads=4), gpt.gpt(width=40, heads=5), tokens)}
    assert found["embed"] == 8
    assert found["blocks.1.attention.qkv:heads"] == 1
    assert not any("width" in group for group in found)
    images = torch.zeros(2, 3, 32, 32)
    small, large = densenet.densenet(width=4, depth=1), densenet.densenet(width=6, depth=1)
    # the stem has twice the growth, a transition half of what comes in
    assert [demand.extra for demand in asked(small, large, images) if demand.group in ("stem", "layers.0.conv2")] == [
        4,
        2,
    ]


def test_heads_with_rotary_positions() -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    found = {demand.group: demand.extra for demand in asked(Llama(2, 1, False), Llama(5, 1, False), tokens)}
    assert found == {"embed": 24, "layers.0.q_proj:heads": 3, "layers.0.gate_proj": 72}


@pytest.mark.parametrize(
    ("small", "large", "why"),
    [
        (Two(4, 4), Two(6, 8), "`left.weight` asks for 6 units and `right.weight` for 8 of what is one channel group"),
        (
            Two(4, 5),
            Two(6, 5, heads=2),
            "axis 0 of `left.weight` is 2 x 3 in the target and 4 here, and the one cannot",
        ),
        (Two(6, 4), Two(6, 3), "`right.weight` has 3 units in the target and 4 here; nothing can shrink"),
        (nn.Linear(3, 2), nn.Linear(3, 4), "`weight` has 4 units in the target and 2 here, frozen: a model output"),
        (nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 3, padding=1), "`weight` has 3 units in the target and 1 here, frozen"),
    ],
)
def test_refusals(small: nn.Module, large: nn.Module, why: str) -> None:
    example = torch.zeros(5, 2, 4) if isinstance(small, nn.Conv1d) else ROWS
    with pytest.raises(gg.Unsupported, match=why):
        asked(small, large, example)


def test_equal_sizes_of_other_forms_are_no_matter() -> None:
    assert asked(Two(4, 5), Two(4, 7, heads=2), ROWS) == [Demand("right", 2, "", "right.weight")]


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a; b"
    assert listed([str(i) for i in range(6)]) == "0; 1; 2; 3; and 2 more"
