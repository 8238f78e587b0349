"""The router: shares of the best; its width grows with what it reads. Rows of tokens by their experts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import Router
from graphgrow.store.names import import_torchvision
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

ROWS = "free>free zero>zero mean>mean copy>copy share>share"
SUMMED = "free>- zero>- mean>- copy>- share>-"


def _grouped(draw: Draw) -> nn.Module:
    import_torchvision()
    pytest.importorskip("transformers.integrations.moe")
    rows, width, out = draw(3, 5), draw(2, 4), draw(2, 4)
    sources = {"x": normal_tensor(draw, rows, width), "y": normal_tensor(draw, 2, width, out)}
    offsets = {"offs": torch.tensor([draw(1, 2), rows], dtype=torch.int32)}
    target = torch.ops.transformers.grouped_mm_fallback
    return Probe(lambda m: op(target, m.x, m.y, offs=m.offs), sources, None, offsets)


def _router(draw: Draw) -> nn.Module:
    width, experts = draw(2, 4), draw(2, 4)
    sources = {"x": normal_tensor(draw, draw(2, 4), width)}
    return Probe(lambda m: m.op(m.x), sources, {"op": Router(width, experts, draw(1, experts))})


CASES = [
    Case((Router,), _router, {"x.0": "free>free zero>free mean>free copy>copy", "x.1": SUMMED}),
    Case(("transformers::grouped_mm_fallback",), _grouped, {"x.1": SUMMED, "y.2": ROWS}),
]


test_square = squares(CASES, 4)


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
