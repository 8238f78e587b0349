"""Sizes that a graph computes itself, after an axis has grown."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.rules import axis_rule, flow
from tests.ops.rules_kept import rules_kept
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def _norm_by_a_shape(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A layer norm that is told the shape of its own weight, as small GPTs are."""
    hidden = m.first(x)
    return m.last(F.layer_norm(hidden, m.norm.weight.shape, m.norm.weight, m.norm.bias))


def _pairs(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Rotary pairs: a shape that is computed as a whole, with -1 in it."""
    heads = m.first(x).view(x.shape[0], x.shape[1], 2, 6)
    even, odd = heads.reshape(heads.shape[:-1] + (-1, 2)).unbind(-1)  # noqa: RUF005  # the form under test
    turned = torch.stack([even - odd, even + odd], -1).flatten(3)
    return m.last(turned.reshape(x.shape[0], x.shape[1], -1))


def _last_steps(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Of a memory and an input one after the other, the input's part, counted from the end."""
    length = x.shape[1]
    joined = m.first(torch.cat([torch.tanh(x[:, :2]), x], 1))
    return m.last(joined[:, -length:].reshape(x.shape[0], length, 3, 4).flatten(2))


def _heads_to_the_shape_of_another(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Heads laid flat by the shape of a value that is as wide, and grows by itself."""
    hidden = torch.relu(m.first(x))
    heads = m.own(hidden).view(*hidden.shape[:2], 3, 4)
    return m.last(heads.tanh().reshape(hidden.shape)) + m.last(heads.reshape(shape=hidden.size()))


def _to_the_shape_that_it_had(m: Any, x: torch.Tensor) -> torch.Tensor:
    """What is written behind goes back into the shape of what was read, as mixtures of experts do."""
    hidden = torch.relu(m.first(x))
    shape = hidden.shape
    return m.last(m.own(hidden.reshape(-1, shape[-1])).tanh().reshape(shape))


def _norm_by_the_shape_of_another(m: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(m.first(x))
    return m.last(F.layer_norm(m.own(hidden), hidden.shape[2:], m.norm.weight, m.norm.bias))


RUNS = [
    _norm_by_a_shape,
    _pairs,
    _last_steps,
    _heads_to_the_shape_of_another,
    _to_the_shape_that_it_had,
    _norm_by_the_shape_of_another,
]


@pytest.mark.parametrize("run", RUNS)
def test_computed_sizes_follow(run: Any) -> None:
    torch.manual_seed(3)
    layers = {"first": nn.Linear(5, 12), "own": nn.Linear(12, 12), "last": nn.Linear(12, 2), "norm": nn.LayerNorm(12)}
    model = Forward(run, **layers).double()
    graph = gg.trace(model, torch.randn(2, 4, 5).double())
    found = list(graph.mutations("widen"))
    assert found
    for mutation in found:
        grown = gg.apply(graph, mutation)
        assert_preserved(graph, grown)
        other = torch.randn(3, 7, 5).double()  # another length than that of capture
        assert torch.allclose(grown.module(other), model(other), atol=1e-12), mutation


@pytest.mark.parametrize(
    ("rows", "written"),
    [
        (lambda n, heads: n * 2, ["mul 3"]),
        (lambda n, heads: 2 * n, ["mul 3"]),
        (lambda n, heads: n + n, ["mul 3", "floordiv 2"]),
    ],
)
def test_a_product_with_the_number_of_heads_is_one_again(rows: Any, written: list[str]) -> None:
    """Rows of samples and heads, as XGLM's scores have."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        heads = m.first(x).view(n, length, 2, 6).transpose(1, 2).reshape(rows(n, 2), length, 6)
        scores = torch.bmm(heads, heads.transpose(1, 2)).softmax(-1)
        attended = torch.bmm(scores, heads).view(n, 2, length, 6).transpose(1, 2)
        return m.last(attended.reshape(n, length, -1))

    model = Forward(run, first=nn.Linear(5, 12), last=nn.Linear(12, 2)).double()
    graph = gg.trace(model, torch.randn(3, 4, 5).double())
    grown = gg.apply(graph, "widen(first:0, extra=1)")
    live = [node for node in grown.module.graph.nodes if any(user.target == "reshape" for user in node.users)]
    (size,) = [node for node in live if isinstance(node.meta["value"], int) and node.meta["value"] == 9]
    steps: list[str] = []
    while size.target in (operator.mul, operator.floordiv):
        steps.insert(0, f"{size.target.__name__} {size.args[1]}")
        size = size.args[0]
    assert steps == written
    other = torch.randn(2, 7, 5).double()
    assert torch.allclose(grown.module(other), model(other), atol=1e-12)


class FirstUnit(nn.Module):
    """One unit, whatever it reads; its rule says otherwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., :1]


def test_a_rule_that_foretells_another_shape_is_found_out_before_any_number_is() -> None:
    with rules_kept():
        axis_rule(FirstUnit)(lambda call, x: call.output(x.axes, flow.Same(call.operand(x))))
        model = Forward(lambda m, x: m.last(m.one(m.first(x)) * m.scale), first=nn.Linear(3, 1), one=FirstUnit(),
                        scale=nn.Parameter(torch.ones(1)), last=nn.Linear(1, 2))  # fmt: skip
        graph = gg.trace(model, torch.randn(2, 3), leaves=(FirstUnit,))
        with pytest.raises(gg.StructureError, match=r"has shapes \[\(2, 1\)\] where its axes predict \[\(2, 2\)\]"):
            gg.apply(graph, "widen(first, extra=1)")


def _by_an_inputs_size(m: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = m.first(x)
    return m.last(hidden * (hidden.shape[1] * hidden.shape[2]) ** -0.5)


def _by_a_kept_size(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The softmax freezes the two ways, but they are rows of `first`, as the units are."""
    parts = m.first(x).unflatten(-1, (2, 6))
    return m.last((parts * (parts.shape[-1] * parts.shape[-2]) ** -0.5 * parts.softmax(-2)).flatten(2))


def test_numbers_that_follow_an_input_are_no_sites() -> None:
    """What is listed applies: a number that is kept as it was may not be one that the next input changes."""
    torch.manual_seed(4)
    parts = {"first": nn.Linear(5, 12), "last": nn.Linear(12, 2)}
    graph = gg.trace(Forward(_by_an_inputs_size, **parts).double(), torch.randn(2, 4, 5).double())
    for kind in ("widen", "split"):
        listed = graph.mutations(kind)
        assert not list(listed)
        (first,) = (refusal.reason for refusal in listed.refusals if refusal.site == "first")
        assert "computed from this size and from one of the inputs'" in first

    graph = gg.trace(Forward(_by_a_kept_size, **parts).double(), torch.randn(2, 4, 5).double())
    found = [mutation for kind in ("widen", "split") for mutation in graph.mutations(kind)]
    assert len(found) == 2
    for mutation in found:
        assert_preserved(graph, gg.apply(graph, mutation))
