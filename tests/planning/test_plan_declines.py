"""What the planner says no to, and why: on a value of four features and its readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.rules import Call, NormKind, Value, axis_rule, flow
from tests.ops.rules_kept import rules_kept
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def attended(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries, keys and values as three positions of one axis, and what is attended to."""
    packed = m.packed(x).view(2, 5, 3, 4)
    query, key, value = packed.unbind(2)
    return packed, (query @ key.transpose(1, 2)).softmax(-1) @ value


def summed(m: Any, x: torch.Tensor) -> Any:
    packed, found = attended(m, x)
    return m.last(found) + m.last(packed.sum(2))


def one_by_size(m: Any, x: torch.Tensor) -> Any:
    packed, found = attended(m, x)
    return m.last(found) + m.last(packed[:, :, x.shape[1] - 4])


def outer(m: Any, x: torch.Tensor) -> Any:
    h = m.first(x)
    return (h.unsqueeze(-1) * h.unsqueeze(-2)).sum((-1, -2))


APART = "positions of an axis that are filled differently come together"

# model, group, what is said to `widen` and to `split`
DECLINED: dict[str, tuple[Callable[[Any, Any], Any], str, str, str]] = {
    "positions that are summed": (summed, "packed", APART, APART),
    "a position by a size": (one_by_size, "packed", APART, APART),
    "an outer product": (
        outer,
        "first",
        "new units must be zero in front of it, where its slope is zero, and would never learn (at `mul`)",
        "a product of two shares (at `mul`)",
    ),
    "a square matrix as one row": (
        lambda m, x: m.last(m.first(x) @ m.square.view(4, 4) + m.first(x)),
        "first",
        "an axis is a product of this axis with itself (at `square`)",
        "an axis is a product of this axis with itself (at `square`)",
    ),
    "queries and keys that are normalised": (
        lambda m, x: m.norm(m.first(x)) @ m.norm(m.first(x)).transpose(1, 2),
        "first",
        "both sides of a product would be zero, and never learn (at `matmul`)",
        "a product of two shares (at `matmul`)",
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_cannot_be_exact_is_neither_offered_nor_done(name: str) -> None:
    run, group, *said = DECLINED[name]
    members: dict[str, Any] = {
        "first": nn.Linear(3, 4), "packed": nn.Linear(3, 12), "last": nn.Linear(4, 2), "norm": nn.RMSNorm(4),
        "square": torch.randn(16),
    }  # fmt: skip
    graph = gg.trace(Forward(run, **members), torch.randn(2, 5, 3))
    for text, reason in zip((f"widen({group}, extra=1)", f"split({group})"), said, strict=True):
        with pytest.raises(gg.Declined) as declined:
            gg.apply(graph, text)
        assert reason in str(declined.value)
        assert not list(graph.mutations(text.partition("(")[0]))


class Centred(nn.Module):
    """Over its deviation, without weight and eps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.square().mean(-1, keepdim=True).sqrt()


@pytest.fixture
def _rules_as_they_were() -> Iterator[None]:
    with rules_kept():
        yield


@pytest.mark.usefixtures("_rules_as_they_were")
def test_a_norm_of_a_users_own_in_which_nothing_can_be_corrected() -> None:
    @axis_rule(Centred)
    def rule(call: Call, x: Value) -> Value:
        call.normalise(NormKind.RMS, x, (len(x.axes) - 1,), x.axes[-1:], None, None, None, 0.0)
        return call.output(x.axes, flow.Normalised(call.operand(x), x.axes[-1:], flow.Pointwise((call.operand(x),))))

    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), Centred(), nn.Linear(4, 2)), torch.randn(2, 3), leaves=[Centred])
    with pytest.raises(gg.Declined, match="RMS norm without a weight or an eps to correct"):
        gg.apply(graph, "widen(0, extra=1)")
    assert_preserved(graph, gg.apply(graph, "split(0)"))


def tiled(x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x], -1) + added


@pytest.mark.usefixtures("_rules_as_they_were")
@pytest.mark.parametrize("alike", [True, False])
def test_parts_of_an_axis_are_carried_to_several_where_they_are_filled_alike(alike: bool) -> None:
    """Queries and keys are not: one side of their product is zero."""

    @axis_rule(tiled)
    def rule(call: Call, x: Value, added: Value) -> Value:
        return call.output(added.axes, flow.Add((call.operand(x), call.operand(added))))

    def run(m: Any, x: torch.Tensor) -> Any:
        query, key = m.query(x), m.key(x)
        met = query + key if alike else query @ key.transpose(1, 2)
        return met.sum() + m.last(tiled(torch.cat([query, key], -1), torch.cat([query, key, query, key], -1)))

    members = {"query": nn.Linear(3, 4), "key": nn.Linear(3, 4), "last": nn.Linear(16, 2)}
    graph = gg.trace(Forward(run, **members).double(), torch.randn(2, 5, 3, dtype=torch.float64))
    if alike:
        assert_preserved(graph, gg.apply(graph, "widen(query, extra=2)"))
        return
    with pytest.raises(gg.Declined, match="parts of the axis that a view folds together are filled differently"):
        gg.apply(graph, "widen(query, extra=2)")


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_a_mean_that_a_scale_weights_may_be_of_complex_numbers(kind: str) -> None:
    """Complex rows behind a real scale hold their weighted mean; real rows could not hold that of a complex scale."""
    row, scale = torch.randn(3, 4, dtype=torch.cfloat), torch.randn(4)
    if kind == "complex":
        row, scale = torch.randn(3, 4), torch.randn(4, dtype=torch.cfloat)

    def run(m: Any, x: torch.Tensor) -> Any:
        return ((x.to(m.row.dtype) @ m.row) * m.scale).mean(-1).abs()

    graph, x = gg.trace(Forward(run, row=row, scale=scale), torch.randn(2, 5, 3)), torch.randn(2, 5, 3)
    (offered,) = graph.mutations("widen")
    grown = gg.apply(graph, offered)
    assert torch.allclose(grown.module(x), graph.module(x), rtol=1e-5, atol=1e-6)
    new = grown.module.get_parameter("row")[:, 4:]
    assert bool((new.imag != 0).all()) if kind == "real" else new.dtype is torch.float32


def test_what_only_a_length_reads_would_never_learn() -> None:
    """The slope of a norm at zero is zero, and new units must be zero in front of it."""
    graph = gg.trace(Forward(lambda m, x: m.first(x).norm(dim=-1), first=nn.Linear(3, 4)), torch.randn(2, 5, 3))
    with pytest.raises(gg.Declined, match=r"where its slope is zero, and would never learn \(at `norm`\)"):
        gg.apply(graph, "widen(first, extra=1)")
    assert not list(graph.mutations("widen"))
