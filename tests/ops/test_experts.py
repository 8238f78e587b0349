"""The router: shares of the best, and its width grows with what it reads."""

from __future__ import annotations

import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import Router
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def test_shares_are_a_softmax_over_the_best() -> None:
    torch.manual_seed(0)
    router = Router(4, 5, 2).double()
    x = torch.randn(3, 7, 4).double()
    shares = router(x)
    everyone = torch.softmax(x @ router.weight.t(), -1)
    best = everyone.topk(2, -1)
    wanted = torch.zeros_like(everyone).scatter(-1, best.indices, best.values / best.values.sum(-1, keepdim=True))
    assert torch.allclose(shares, wanted, rtol=1e-12)
    assert torch.equal((shares > 0).sum(-1), torch.full((3, 7), 2))


def test_what_it_reads_may_grow_and_the_experts_may_not() -> None:
    model = Forward(lambda m, x: m.router(m.first(x).tanh()), first=nn.Linear(3, 4), router=Router(4, 3, 2)).double()
    graph = gg.trace(model, torch.randn(2, 3).double())
    for text in ("widen(first, extra=2)", "split(first, units=[1])"):
        child = gg.apply(graph, text)
        assert_preserved(graph, child)
        assert child.module.get_submodule("router").width == child.group("first").size
    assert {group.name: group.frozen is None for group in graph.groups} == {"first": True, "router": False}
