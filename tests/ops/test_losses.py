"""Losses: whatever they are taken of stays as wide as it is, and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.ops import losses
from graphgrow.ops.registry import _RULES, load_rules


class Hidden(nn.Module):
    """A loss of hidden values beside the output, as models answer that are trained in their own forward."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)
        self.loss: Callable[..., torch.Tensor] = target() if isinstance(target, type) else target

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p, q = torch.sigmoid(self.a(x)), torch.sigmoid(self.b(x))
        return self.head(p), self.loss(*_arguments(self.loss, p, q))


def _arguments(loss: Any, p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, ...]:
    name = (loss.__name__ if hasattr(loss, "__name__") else type(loss).__name__).lower().replace("_", "")
    if "crossentropy" in name and "binary" not in name:
        return p, q.softmax(1)
    if "nllloss" in name and "poisson" not in name:
        return p, torch.zeros(len(p), dtype=torch.long)
    if "cosineembedding" in name:
        return p, q, torch.ones(len(p))
    if "multimargin" in name or "multilabelmargin" in name:
        return p, torch.zeros(p.shape if "label" in name else len(p), dtype=torch.long)
    return (p, q, p + q) if "triplet" in name or "marginranking" in name else (p, q)


def _targets() -> list[Any]:
    load_rules()
    return [target for target, rule in _RULES.items() if rule is losses.loss]


@pytest.mark.parametrize("target", _targets(), ids=lambda target: str(getattr(target, "__name__", target)))
def test_what_a_loss_is_taken_of_does_not_grow(target: Any) -> None:
    torch.manual_seed(0)
    graph = gg.trace(Hidden(target), torch.randn(5, 3))
    assert "no axis rule" not in graph.explain()
    with pytest.raises(gg.GraphGrowError, match="a loss is taken over it"):
        gg.apply(graph, "widen(a, extra=2)")


def test_a_batch_of_losses_is_no_number() -> None:
    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(3, 6), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(self.head(self.hidden(x).relu()), y, reduction="none").mean(1)

    torch.manual_seed(0)
    graph = gg.trace(Each(), (torch.randn(5, 3), torch.randn(5, 4)))
    assert gg.verify(graph, gg.apply(graph, "widen(hidden, extra=2)")).preserved
