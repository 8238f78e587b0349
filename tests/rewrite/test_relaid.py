"""Blocks that lay their tokens in one row are closed where they bring them back into the shape of the stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.rewrite.closing import close_branches
from graphgrow.rewrite.region import Region
from tests.rewrite.residual_blocks import C, linear
from tests.rewrite.small_models import Forward


@pytest.mark.parametrize(
    ("sizes", "closed"),
    [
        (lambda x: (x.shape,), True),
        (lambda x: (x.size(),), True),
        (lambda x: (x.shape[0], x.size(1), -1), True),
        (lambda x: (x.size(-3), x.shape[1], C), True),
        (lambda x: (x.shape[2], x.shape[1], x.shape[0]), False),  # as many samples as features, in the example
        (lambda x: (-1, x.shape[1], x.shape[0]), False),
        (lambda x: (4, 5, C), False),
        (lambda x: (x.shape[0], 5, C), False),
        (lambda x: (x.shape[0], x.shape[1], 2, 2), False),
    ],
)
def test_tokens_in_a_row_are_back_where_sizes_of_the_stream_say_so(sizes: Any, closed: bool) -> None:
    """In the example each of these but the last has the shape of the stream."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        row = x.reshape(-1, C)
        return (row + m.l(row.tanh())).view(*sizes(x))

    model = Forward(lambda m, x: m.block(m.first(x)), first=nn.Linear(3, C), block=Forward(run, l=linear()))
    graph = gg.trace(model, torch.randn(4, 5, 3))
    assert graph.analysis.facts
    region = Region.of(graph.module.graph, "block")
    found = close_branches(graph.module, region.nodes, region.inputs[0], region.result, region.result, "block")
    assert found == (["block.l"] if closed else None)
