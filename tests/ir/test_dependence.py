"""What an input's numbers reach, and what its sizes alone do."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir.dependence import nodes_fed


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 4))

    def forward(self, x: Any) -> Any:
        mask = x.new_ones(x.shape[1], x.shape[1])
        noise = torch.zeros_like(x) + self.table[: x.size(1)]
        filled = torch.full_like(self.table, x.sum())
        return mask.tril(), noise, filled, x.shape[0], self.table.expand(x.shape[0], 9, 4), x.mean(1)


def test_sizes_alone_feed_nothing() -> None:
    graph = fx.symbolic_trace(Both()).graph
    (output,) = (node for node in graph.nodes if node.op == "output")
    fed = nodes_fed(graph)
    assert [leaf in fed for leaf in output.args[0]] == [False, False, True, False, False, True]
