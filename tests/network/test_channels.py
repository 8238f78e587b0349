"""Which axis of a tensor holds its channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.channels import Layout
from tests.rewrite.small_models import Forward


def graph(run: Any, shape: tuple[int, ...], **members: Any) -> Graph:
    return gg.trace(Forward(run, **members), torch.randn(shape))


def pair(shape: tuple[int, ...], a: nn.Module, b: nn.Module, between: Any = torch.relu) -> Graph:
    """Two modules with something between."""
    return graph(lambda m, x: m.b(between(m.a(x))), shape, a=a, b=b)


CASES: dict[str, tuple[Graph, str, str]] = {  # model, site, "layout count dims"
    "rows": (pair((5, 3), nn.Linear(3, 4), nn.Linear(4, 2)), ":relu", "features 4 0"),
    "tokens": (pair((2, 5, 3), nn.Linear(3, 4), nn.Linear(4, 2)), ":relu", "features 4 1"),
    "as long as wide": (pair((2, 4, 4), nn.Linear(4, 4), nn.Linear(4, 2)), ":relu", "features 4 1"),
    "sequences": (pair((2, 3, 7), nn.Conv1d(3, 4, 3), nn.Conv1d(4, 2, 1)), ":relu", "maps 4 1"),
    "images": (pair((2, 3, 7, 6), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)), ":relu", "maps 4 2"),
    "as wide as deep": (pair((2, 4, 4, 4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)), ":relu", "maps 4 2"),
    "volumes": (pair((2, 3, 5, 4, 6), nn.Conv3d(3, 4, 3), nn.Conv3d(4, 2, 1)), ":relu", "maps 4 3"),
    "channels last": (
        pair((2, 3, 6, 5), nn.Conv2d(3, 4, 1), nn.Linear(4, 2), lambda x: x.permute(0, 2, 3, 1)),
        ":permute",
        "features 4 2",
    ),
    "flattened maps": (
        pair((2, 3, 3, 2), nn.Conv2d(3, 4, 1), nn.Linear(24, 2), lambda x: x.flatten(1)),
        ":flatten",
        "features 24 0",
    ),
    "the input": (graph(lambda m, x: m.a(x), (2, 3, 6, 5), a=nn.Conv2d(3, 4, 1)), "x", "maps 3 2"),
    "weights with a norm": (
        pair((2, 3, 7), weight_norm(nn.Conv1d(3, 4, 3)), weight_norm(nn.Conv1d(4, 2, 1))),
        ":relu",
        "maps 4 1",
    ),
    "a map of constants": (
        graph(
            lambda m, x: m.b(x) + m.c(torch.relu(m.a(m.table))),
            (5, 3),
            a=nn.Linear(3, 4),
            b=nn.Linear(3, 2),
            c=nn.Linear(4, 2),
            table=torch.randn(5, 3),
        ),
        ":relu",
        "features 4 0",
    ),
    "read along another axis than written": (
        pair((2, 5, 3), nn.Linear(3, 4), nn.Linear(5, 2), lambda x: x.transpose(1, 2)),
        ":transpose",
        "features 5 1",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_the_channels_stand(case: str) -> None:
    found, site, expected = CASES[case]
    channels = found.channels.of(found.sites.find(site))
    assert f"{channels.layout.value} {channels.count} {channels.dims}" == expected
    assert channels.shape[1 if channels.layout is Layout.MAPS else -1] == channels.count


def heads(m: Any, x: Any) -> Any:
    x = m.a(x).unflatten(-1, (2, 4)).transpose(1, 2).softmax(-1)
    return m.b(x.transpose(1, 2).flatten(-2))


def scaled(m: Any, x: Any) -> Any:
    return m.a(x) * m.scale.unsqueeze(0)


DECLINED: dict[str, tuple[Graph, str, str]] = {
    "whole numbers": (
        graph(lambda m, x: m.b(m.e(x.argmax(-1))), (2, 5, 3), e=nn.Embedding(3, 4), b=nn.Linear(4, 2)),
        ":argmax",
        "torch.int64",
    ),
    "a vector": (graph(lambda m, x: m.a(x).sum(-1), (5, 3), a=nn.Linear(3, 4)), ":sum", r"shape \(5,\)"),
    "a table": (graph(scaled, (5, 3), a=nn.Linear(3, 4), scale=torch.randn(4)), "scale", "no batch of channels"),
    "weights": (graph(lambda m, x: x @ m.w, (5, 3), w=torch.randn(3, 4)), "w", "it is a parameter"),
    "weights that are computed": (
        graph(lambda m, x: x @ (m.w - m.w.mean(0, keepdim=True)), (5, 3), w=torch.randn(3, 4)), ":sub", "made of some",
    ),
    "weights on their way": (
        graph(lambda m, x: x @ (m.w - m.w.mean(0, keepdim=True)).tanh(), (5, 3), w=torch.randn(3, 4)),
        ":sub",
        "made of some",
    ),
    "a weight with a norm": (
        graph(lambda m, x: m.a(x), (5, 3), a=weight_norm(nn.Linear(3, 4))),
        "a.parametrizations.weight.0",
        "made of some",
    ),
    "a size": (
        graph(lambda m, x: m.a(x) * x.shape[0], (5, 3), a=nn.Linear(3, 4)), ":getattr", "no single tensor",
    ),
    "several tensors": (
        graph(lambda m, x: m.a(x).chunk(2, -1)[0], (5, 3), a=nn.Linear(3, 4)), ":chunk", "no single tensor",
    ),
    "heads": (graph(heads, (2, 5, 3), a=nn.Linear(3, 8), b=nn.Linear(8, 2)), ":softmax", "no weight writes or reads"),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLINED)
def test_what_has_no_channels(case: str) -> None:
    found, site, reason = DECLINED[case]
    with pytest.raises(gg.Declined, match=reason):
        found.channels.of(found.sites.find(site))
    with pytest.raises(gg.Declined, match=reason):
        gg.apply(found, f"deepen({site})")
