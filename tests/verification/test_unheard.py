"""What the parent leaves without a gradient, whatever its weights, is not demanded of what is new; all else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg

MODES = ("eval", "gradients", "alive")


class OneKey(nn.Module):
    """Attends to a memory of one token: the softmax is 1, and queries and keys are of no effect."""

    example = (torch.randn(2, 3, 4), torch.randn(2, 1, 6))

    def __init__(self) -> None:
        super().__init__()
        self.first, self.q, self.k, self.v, self.head = (
            nn.Linear(4, 6),
            *(nn.Linear(6, 6) for _ in range(3)),
            nn.Linear(6, 3),
        )

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        attended = F.scaled_dot_product_attention(self.q(self.first(x)), self.k(memory), self.v(memory))
        return self.head(attended) + x[..., :3]


class OneFeature(nn.Module):
    """A norm over one feature is constant."""

    example = (torch.randn(5, 4),)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.norm, self.head = nn.Linear(4, 6), nn.Linear(6, 1), nn.LayerNorm(1), nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.last(torch.relu(self.first(x))))) + x[:, :3]


class MeanOfNorm(nn.Module):
    """The mean of what an instance norm has made to have none is zero."""

    example = (torch.randn(2, 3, 6, 6),)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.first(x)).mean((2, 3))) + x.mean((2, 3))


class Crossing(nn.Module):
    """Cross attention, added to its input, as a block that can be copied."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.kv, self.out = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            q, _ = self.q(x).chunk(2, -1)  # a node of several values is on the way
            k, v = self.kv(memory).split([2, 6], -1)
            scores = (q @ k.transpose(1, 2)) / x.size(-1) ** 0.5
            return x + self.out(scores.softmax(-1) @ v[..., :4])

    example = (torch.randn(2, 3, 4), torch.randn(2, 1, 4))

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = self.Block(), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x, memory))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Crossing, "deepen(block, kind=copy)"),
        (OneKey, "widen(q, extra=3)"),
        (OneKey, "add-branch(q, kind=mlp)"),
        (OneKey, "split(first)"),
        (OneFeature, "widen(first, extra=3)"),
        (OneFeature, "deepen(:relu, kind=mlp)"),
        (OneFeature, "add-branch(last, kind=mlp)"),
        (MeanOfNorm, "widen(first, extra=2)"),
        (MeanOfNorm, "add-branch(head, kind=mlp)"),
    ],
)
def test_it_raises_no_alarm(kind: Any, text: str) -> None:
    torch.manual_seed(0)
    graph = gg.trace(kind(), kind.example)
    verdict = gg.verify(graph, gg.apply(graph, text), modes=MODES, batch_sizes=())
    assert all(check.passed for check in verdict.checks), verdict
    assert sum(check.mode == "alive" for check in verdict.checks) == 2


def test_what_is_heard_beside_it_is_still_demanded() -> None:
    """The values of that memory are read: a branch beside their map that is cut off is flagged."""
    torch.manual_seed(0)
    graph = gg.trace(OneKey(), OneKey.example)
    grown = gg.apply(graph, "add-branch(v, kind=mlp)", share=False)
    assert gg.verify(graph, grown, modes=MODES).preserved is True
    for node in list(grown.module.graph.nodes):
        if node.op == "call_module" and str(node.target).endswith("add_branch.last"):
            with grown.module.graph.inserting_after(node):
                cut = grown.module.graph.call_method("detach", (node,))
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)
    grown.module.recompile()
    verdict = gg.verify(graph, grown, modes=MODES)
    assert [check.mode for check in verdict.checks if not check.passed] == ["alive"], verdict


def test_a_copy_that_is_cut_off_is_flagged() -> None:
    """Its queries are not demanded, as its softmax stops them; its values are."""
    torch.manual_seed(0)
    graph = gg.trace(Crossing(), Crossing.example)
    grown = gg.apply(graph, "deepen(block, kind=copy)", share=False)
    for node in list(grown.module.graph.nodes):
        if node.op == "call_module" and str(node.target) == "block_deepen.kv":
            with grown.module.graph.inserting_after(node):
                cut = grown.module.graph.call_method("detach", (node,))
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)
    grown.module.recompile()
    verdict = gg.verify(graph, grown, modes=MODES)
    assert [(c.mode, c.where) for c in verdict.checks if not c.passed] == [("alive", "block_deepen.kv.weight")], verdict
