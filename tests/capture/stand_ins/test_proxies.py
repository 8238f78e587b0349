"""Proxies: what a model decides by sizes is checked in every call of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import require_decision
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def _branch(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.a(x).relu()
    return m.b(y * 2 if x.shape[1] == 4 else y)


def _root(m: Any, x: torch.Tensor) -> torch.Tensor:
    side = int((x.shape[1] * 4) ** 0.5)
    return m.b(sum(m.a(x[:, i]).relu() for i in range(side - 2)))


def _count(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.b(sum(m.a(x[:, i]).relu() for i in range(x.shape[1])))


def _asserted(m: Any, x: torch.Tensor) -> torch.Tensor:
    assert x.shape[1] % 4 == 0, "whole fours"
    return m.b(m.a(x).relu())


def _rows(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([m.b(m.a(row).relu()) for row in x])


def _model(run: Callable[[Any, torch.Tensor], torch.Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return Forward(run, a=nn.Linear(3, 5), b=nn.Linear(5, 2)).double()


DECISIONS = [
    (_branch, (2, 4, 3), (2, 5, 3), (3, 4, 3)),
    (_root, (2, 4, 3), (2, 9, 3), (3, 4, 3)),
    (_count, (2, 4, 3), (2, 5, 3), (3, 4, 3)),
    (_asserted, (2, 4, 3), (2, 5, 3), (3, 8, 3)),
    (_rows, (2, 3), (3, 3), (2, 3)),
]


@pytest.mark.parametrize(("run", "shape", "other", "like"), DECISIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_sizes_that_decide_otherwise_are_refused(
    run: Any, shape: tuple[int, ...], other: tuple[int, ...], like: tuple[int, ...]
) -> None:
    model = _model(run)
    graph = gg.trace(model, torch.randn(shape).double(), way="fx")
    inputs = torch.randn(like).double()
    assert torch.equal(graph.module(inputs), model(inputs))
    with pytest.raises(ValueError, match=r"test_proxies\.py:\d+ the model decides by the sizes"):
        graph.module(torch.randn(other).double())
    child = gg.apply(graph, ["widen(a, extra=2)", "split(a, units=[0])"])
    assert_preserved(graph, child)
    with pytest.raises(ValueError, match="the model decides by the sizes"):
        child.module(torch.randn(other).double())


def test_what_was_decided_by_a_width_is_not_asked_once_it_has_grown() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return m.b(y.relu() if y.shape[-1] == 5 else y)

    model = _model(run)
    graph = gg.trace(model, torch.randn(2, 3).double(), way="fx")
    child = gg.apply(graph, "widen(a, extra=2)")
    assert_preserved(graph, child)
    checks = [[n for n in g.module.graph.nodes if n.target is require_decision] for g in (graph, child)]
    assert list(map(len, checks)) == [1, 0]


def test_ranks_are_the_same_for_all_inputs() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.b(m.a(x).relu() if x.dim() == 2 and x.is_floating_point() else x)

    graph = gg.trace(_model(run), torch.randn(2, 3).double(), way="fx")
    assert not any(node.target is require_decision for node in graph.module.graph.nodes)


def test_a_kind_of_device_is_the_models_own() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        shift = torch.arange(2, device=x.device.type)
        return m.b(m.a(x).relu() if x.device.type in ("cpu", "mps") else m.a(x)) + shift

    model, x = _model(run), torch.randn(2, 3).double()
    graph = gg.trace(model, x, way="fx")
    assert torch.equal(graph.module(x), model(x))
    assert graph.module.to("meta")(x.to("meta")).is_meta  # where it is used, it is read in each call
    assert {group.name for group in graph.groups if group.frozen is None} == {"a"}


@pytest.mark.parametrize(
    "sizes",
    [
        lambda x: x.size()[:-1] + (2, x.shape[-1] // 2),  # noqa: RUF005
        lambda x: (*x.shape[:-1], 2, -1),
        lambda x: (x.shape[0],) + x.shape[1:-1] + (2, x.shape[-1] // 2),  # noqa: RUF005
        lambda x: x.shape[:2] + torch.Size([2]) + (x.shape[-1] // 2,),
    ],
)
def test_sizes_that_are_joined_follow_growth(sizes: Callable[[torch.Tensor], Any]) -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        result: torch.Tensor = m.b(y.view(sizes(y)).sum(2))
        return result

    torch.manual_seed(0)
    graph = gg.trace(Forward(run, a=nn.Linear(3, 8), b=nn.Linear(4, 2)), torch.randn(2, 5, 3), way="fx")
    for mutation in (f"widen({group}, extra=2)" for group in ("a:0", "a:1")):
        child = gg.apply(graph, mutation)
        assert_preserved(graph, child)
        x = torch.randn(3, 7, 3)
        torch.testing.assert_close(child.module(x), graph.module(x))


@pytest.mark.parametrize(
    "count",
    [lambda n: round(n * 0.5), lambda n: int(round(n / 3, 1) * 2), lambda n: int(torch.tensor(n / 2).ceil()),
     lambda n: int(torch.tensor(n / 2).ceil().item())],
)  # fmt: skip
def test_sizes_that_are_rounded_are_computed_in_each_call(count: Callable[[Any], Any]) -> None:
    model = _model(lambda m, x: m.b(m.a(x)[:, : count(x.shape[1])]))
    graph = gg.trace(model, torch.randn(2, 7, 3).double(), way="fx")
    for steps in (7, 8, 13):
        inputs = torch.randn(2, steps, 3).double()
        assert torch.equal(graph.module(inputs), model(inputs))
    assert_preserved(graph, gg.apply(graph, "widen(a, extra=2)"))


def test_a_tensor_is_not_rounded_by_python() -> None:
    with pytest.raises(gg.CaptureError, match=r"fails on its own example inputs .* __round__"):
        gg.trace(_model(lambda m, x: m.b(round(m.a(x)))), torch.randn(2, 3).double(), way="fx")
