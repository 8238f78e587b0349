"""The bounds of a part of a graph, whatever it reads: against values of the operators themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.ir.bounds import Bounds
from graphgrow.network.ranges import Ranges, operator_name
from tests.rewrite.small_models import Forward


def nodes_of(run: Any, **modules: nn.Module) -> list[fx.Node]:
    graph = gg.trace(Forward(run, **modules), torch.rand(3, 4) + 0.5)
    return list(graph.module.graph.nodes)


def last(nodes: list[fx.Node]) -> fx.Node:
    found = nodes[-1].args[0]
    assert isinstance(found, fx.Node)
    return found


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda m, x: x.relu() + 1, Bounds(1.0)),
        (lambda m, x: 2 * x.sigmoid() - 3, Bounds(-3.0, -1.0)),
        (lambda m, x: m.tanh(x).square(), Bounds(0.0, 1.0)),
        (lambda m, x: torch.var_mean(x, -1)[0], Bounds(0.0)),
        (lambda m, x: torch.var_mean(x, -1)[1], Bounds()),
        (lambda m, x: x.square().mean(-1) * x.shape[-1], Bounds(0.0)),
        (lambda m, x: x.abs() / x.size(0), Bounds(0.0)),
        (lambda m, x: x.abs() / (x.size(0) - 4), Bounds()),
        (lambda m, x: x.sigmoid().chunk(2, -1)[1], Bounds(0.0, 1.0)),
        (lambda m, x: torch.logit(x), Bounds()),
    ],
)
def test_bounds_of_a_node(run: Any, expected: Bounds) -> None:
    nodes = nodes_of(run, tanh=nn.Tanh())
    assert Ranges({nodes[0]}).of(last(nodes)) == expected


def test_a_source_may_hold_anything() -> None:
    nodes = nodes_of(lambda m, x: x.relu() + 1)
    relu = next(node for node in nodes if operator_name(node) == "relu")
    assert Ranges({relu}).of(relu) == Bounds()
    assert Ranges({relu}).of(last(nodes)) == Bounds()
    assert Ranges(()).of(last(nodes)) == Bounds(1.0)


def test_numbers_bound_themselves() -> None:
    assert Ranges(()).of(2) == Bounds(2.0, 2.0)
    assert Ranges(()).of(math.inf) == Bounds()
    assert Ranges(()).of("mean") == Bounds()


def test_values_far_back_are_not_followed() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.relu()
        for _ in range(500):
            x = x + x
        return x

    assert Ranges(()).of(last(nodes_of(run))) == Bounds()


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda m, x: torch.exp(x), "exp"),
        (lambda m, x: x.exp(), "exp"),
        (lambda m, x: x.clone().exp_(), "exp"),
        (lambda m, x: x / 2, "truediv"),
        (lambda m, x: torch.linalg.vector_norm(x, dim=-1), "vector_norm"),
        (lambda m, x: m.tanh(x), ""),
    ],
)
def test_one_name_for_each_way_to_call_an_operator(run: Any, name: str) -> None:
    assert operator_name(last(nodes_of(run, tanh=nn.Tanh()))) == name
