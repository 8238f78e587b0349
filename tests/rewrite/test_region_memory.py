"""Copies of blocks that overwrite, remember or count: nothing is written, nor counted, twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.passes.claims import assert_alive, assert_exact, grown
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward
from tests.rewrite.test_region import Block, C, region_of, traced


class SharedNorm(nn.Module):
    """A batch norm that a block calls, and the model too; `inside` says under which path it is known."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(C)
        if inside:
            self.block = Forward(lambda m, x, *_: x + m.l2(m.n(m.l1(x)).relu()), l1=nn.Linear(C, C),
                                 l2=nn.Linear(C, C), n=norm)  # fmt: skip
            self.norm = self.block.n
        else:
            self.norm = norm
            self.block = Block(self)  # type: ignore[assignment]
        self.first, self.last = nn.Linear(3, C), nn.Linear(C, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.norm(self.block(self.first(x))))
        return result


@pytest.mark.parametrize("inside", [True, False])
def test_no_statistics_are_updated_twice(inside: bool) -> None:
    graph = gg.trace(SharedNorm(inside).double(), torch.randn(5, 3, dtype=torch.float64))
    child = grown(graph, "deepen(block, kind=copy)")
    assert_exact(graph, child, batches=(2, 3))
    norms = [part for part in child.module.modules() if isinstance(part, nn.BatchNorm1d)]
    first, second = norms
    assert first.weight is second.weight, "parameters that others use stay theirs"
    assert first.running_mean is not second.running_mean


def test_an_overwritten_stream_is_cloned_first() -> None:
    """A ReLU in place in front, behind an activation that keeps its output for the backward pass."""
    run: Any = lambda m, x: m.l2(m.r(x)).sigmoid()  # noqa: E731
    graph = traced(run, l2=nn.Linear(C, C), r=nn.ReLU(inplace=True))
    child = grown(graph, "deepen(block, kind=copy)")
    assert [n.target for n in child.module.graph.nodes if n.op == "call_method"].count("clone") == 1
    assert_exact(graph, child)
    assert_alive(graph, child)  # trains: nothing that the backward pass needs was overwritten


def test_what_is_not_overwritten_is_not_cloned() -> None:
    graph = traced(lambda m, x: m.r(m.l(x)) + x, l=nn.Linear(C, C), r=nn.ReLU(inplace=True))
    child = grown(graph, "deepen(block, kind=copy)")
    assert "clone" not in [node.target for node in child.module.graph.nodes]


class WritesElsewhere(nn.Module):
    """A block that overwrites a tensor which is not its stream: of another shape, or of the same."""

    def __init__(self, same: bool) -> None:
        super().__init__()
        self.first, self.last, self.l = nn.Linear(3, C), nn.Linear(C, 2), nn.Linear(C, C)
        self.other = nn.Linear(3, C if same else 1)
        self.block = Memo(self.l)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.block(self.first(x), self.other(x)))
        return result


class Memo(nn.Module):
    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.l1 = nn.Linear(inner.in_features, inner.out_features)

    def forward(self, x: torch.Tensor, memo: torch.Tensor) -> torch.Tensor:
        memo.tanh_()
        result: torch.Tensor = x + self.l1(x) * memo
        return result


@pytest.mark.parametrize("same", [True, False])
def test_memory_of_others_is_written_into_once(same: bool) -> None:
    graph = gg.trace(WritesElsewhere(same).double(), torch.randn(4, 3, dtype=torch.float64))
    if not same:
        with pytest.raises(gg.Declined, match="`block` writes into `other`, which is not its own"):
            gg.apply(graph, "deepen(block, kind=copy)")
        return
    streams = [str(node.target) for node in region_of(graph).streams()]
    assert streams == ["other"], "only the overwritten one may be the copy's own"
    assert_preserved(graph, grown(graph, "deepen(block, kind=copy)"))
