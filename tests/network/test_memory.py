"""Which values may share memory. What torch does is the judge: a wrong "no" would let an overwritten value be read."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.memory import may_alias, memory_roots, overwritten, written
from tests.rewrite.small_models import Forward

X = torch.randn(2, 4, 6)


def traced(run: Any, **members: Any) -> Graph:
    graph = gg.trace(Forward(run, **members), X)
    assert graph.analysis.facts
    return graph


def last_call(graph: Graph) -> fx.Node:
    return [node for node in graph.module.graph.nodes if node.op.startswith("call")][-1]


VIEWS: dict[str, Any] = {
    "view": lambda m, x: x.view(8, 6),
    "reshape": lambda m, x: torch.reshape(x, (8, 6)),
    "transpose": lambda m, x: x.transpose(1, 2),
    "T": lambda m, x: x.mT,
    "flatten": lambda m, x: x.flatten(1),
    "item": lambda m, x: x[:, 0],
    "expand": lambda m, x: x.expand(2, 4, 6),
    "contiguous": lambda m, x: x.contiguous(),
    "to": lambda m, x: x.to(torch.float32),
    "narrow": lambda m, x: x.narrow(1, 0, 2),
    "identity module": lambda m, x: m.part(x),
    "flatten module": lambda m, x: m.flat(x),
    "dropout module": lambda m, x: m.drop(x),
    "dropout function": lambda m, x: F.dropout(x, 0.5, False),
    "relu in place": lambda m, x: m.relu_(x),
    "add in place": lambda m, x: x.add_(1),
}
FRESH: dict[str, Any] = {
    "add": lambda m, x: x + 1,
    "sum": lambda m, x: x.sum(-1),
    "relu": lambda m, x: F.relu(x),
    "gelu module": lambda m, x: m.gelu(x),
    "exp": lambda m, x: x.exp(),
    "linear module": lambda m, x: m.linear(x),
    "norm module": lambda m, x: m.norm(x),
    "clone": lambda m, x: x.clone(),
    "cat": lambda m, x: torch.cat([x, x]),
    "matmul": lambda m, x: x @ x.transpose(1, 2).contiguous(),
}


def member_modules() -> dict[str, nn.Module]:
    return {
        "part": nn.Identity(), "flat": nn.Flatten(), "drop": nn.Dropout(0.5), "relu_": nn.ReLU(inplace=True),
        "gelu": nn.GELU(), "linear": nn.Linear(6, 6), "norm": nn.LayerNorm(6),
    }  # fmt: skip


@pytest.mark.parametrize("name", [*VIEWS, *FRESH])
def test_aliases_as_torch_makes_them(name: str) -> None:
    graph = traced({**VIEWS, **FRESH}[name], **member_modules())
    x = X.clone()
    with torch.no_grad():
        shares = graph.module.eval()(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert shares is (name in VIEWS)
    assert may_alias(last_call(graph), graph.module) is shares


def test_numbers_share_no_memory() -> None:
    graph = traced(lambda m, x: x + x.shape[0])
    sizes = [node for node in graph.module.graph.nodes if node.target in (getattr, operator.getitem)]
    assert [may_alias(node, graph.module) for node in sizes] == [False, False]


def test_what_is_written() -> None:
    def run(m: Any, x: Any) -> Any:
        y = x.clone()
        y[:, 0] = 1.0
        y.mul_(2)
        y.add_(x)
        z = torch.empty_like(x)
        total = torch.add(y, x, out=z)
        return m.relu(z) + F.relu(total, inplace=False)

    graph = traced(run, relu=nn.ReLU(inplace=True))
    found = {node.name: [t.name for t in written(node, graph.module)] for node in graph.module.graph.nodes}
    assert {name: targets for name, targets in found.items() if targets} == {
        "set_item": ["clone"], "mul_": ["set_item"], "add_": ["mul_"], "relu": ["add"],
    }  # fmt: skip


def test_roots_go_through_views_and_end_at_new_memory() -> None:
    def run(m: Any, x: Any) -> Any:
        y = m.linear(x)
        v = m.part(y.transpose(1, 2))[0]
        w = v.relu_()
        return ((w + 1).add_(x.sum()) + y.new_zeros(())).sum() + v.shape[0]

    graph = traced(run, **member_modules())
    nodes = {node.name: node for node in graph.module.graph.nodes}
    inside = [node for node in nodes.values() if node.op != "placeholder"]
    roots = memory_roots(inside, graph.module)
    linear = nodes["linear"]
    assert all(roots[nodes[name]] == {linear} for name in ("linear", "transpose", "part", "getitem", "relu_"))
    assert roots[nodes["add"]] == {nodes["add"]}
    assert roots[nodes["add_"]] == {nodes["add"]}, "what is added is only read"
    assert memory_roots(inside[1:], graph.module)[nodes["relu_"]] == {linear}, (
        "what is not among them stands for itself"
    )


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda m, x: m.linear(x).relu_(), True),
        (lambda m, x: m.relu_(m.part(m.linear(x))), True),
        (lambda m, x: m.relu_(m.drop(m.flat(m.linear(x)))), True),
        (lambda m, x: m.relu_(m.linear(x).transpose(1, 2)[0]), True),
        (lambda m, x: (m.linear(x) + 1).relu_(), False),
        (lambda m, x: m.gelu(m.linear(x)).mul_(2), False),
        (lambda m, x: m.linear(x).clone().mul_(2), False),
        (lambda m, x: x.clone().add_(m.linear(x)), False),
    ],
)
def test_overwritten_directly_or_through_a_view(run: Any, expected: bool) -> None:
    graph = traced(run, **member_modules())
    assert overwritten(graph.sites.find("linear"), graph.module) is expected
