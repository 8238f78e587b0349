"""Calls of operators that have a rule, in forms for which it has nothing to say: frozen, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg

Call = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

CALLS: dict[str, tuple[Call, str]] = {
    "new_tensor": (lambda x, y: y.new_tensor(x.mean()) + y, "made from tensors"),
    "column_stack": (lambda x, y: torch.column_stack((x[:, 0], y)), "vectors and matrices"),
    "inner": (lambda x, y: torch.inner(x.mean(), y), "a product with a number"),
    "vecdot": (lambda x, y: torch.linalg.vecdot(x.sum(-1, keepdim=True), y), "one of them is broadcast along the axis"),
    "kron": (lambda x, y: torch.kron(x[0], y), "operands of different ranks"),
}


class Between(nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.left, self.right, self.call = nn.Linear(5, 6), nn.Linear(5, 6), call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self.left(x), self.right(x))


@pytest.mark.parametrize("name", CALLS)
def test_the_reason_is_given(name: str) -> None:
    call, reason = CALLS[name]
    model = Between(call).eval()
    x = torch.randn(4, 5)
    graph = gg.trace(model, x)
    assert reason in graph.explain()
    torch.testing.assert_close(graph.module(x), model(x))
