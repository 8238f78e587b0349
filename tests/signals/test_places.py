"""The units of a group in the values that read them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.signals.places import places_of

ALL = torch.Generator()


def test_units_that_a_flattening_spreads_out_are_gathered_again() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    graph = gg.trace(net, torch.randn(5, 1, 2, 2))
    (place,) = places_of(graph, graph.group("0"))
    value = torch.arange(24.0).reshape(2, 12)
    rows = place.rows(value, None, ALL)
    maps = value.reshape(2, 3, 4).permute(0, 2, 1).reshape(-1, 3)
    assert {tuple(row) for row in rows.tolist()} == {tuple(row) for row in maps.tolist()}


def test_heads_and_head_width_of_attention() -> None:
    graph = gg.trace("graphgrow:gpt")
    for name in ("blocks.0.attention.qkv:heads", "blocks.0.attention.qkv:head_width"):
        group = graph.group(name)
        for place in places_of(graph, group):
            node = next(node for node in graph.module.graph.nodes if node.name == place.node)
            assert place.rows(torch.randn(node.meta["value"].shape), None, ALL).shape[1] == group.size


@pytest.mark.parametrize("samples", [7, 100, None])
def test_samples_are_rows_of_the_value(samples: int | None) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    graph = gg.trace(net, torch.randn(2, 1, 4, 4))
    (place,) = places_of(graph, graph.group("0"))
    value = torch.randn(2, 3, 4, 4)
    rows = place.rows(value, samples, torch.Generator().manual_seed(0))
    everything = value.permute(0, 2, 3, 1).reshape(-1, 3)
    assert len(rows) == min(32, samples or 32)
    assert all(bool((everything == row).all(1).any()) for row in rows)


def test_a_stream_is_seen_at_its_ends() -> None:
    graph = gg.trace("graphgrow:vit")
    stream = graph.group("patch_embed")
    assert len(places_of(graph, stream, most=2)) == 2
    assert len(places_of(graph, stream, most=3)) == 3
    assert len(stream.readers) > 3


def test_one_of_several_values_of_an_operator_is_seen_behind_the_node_that_picks_it() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.first(x).chunk(2, -1)
            result: torch.Tensor = self.last(a) + self.last(b)
            return result

    graph = gg.trace(Halves(), torch.randn(5, 4))
    names = {node.name for node in graph.module.graph.nodes}
    places = [place for group in graph.groups if group.frozen is None for place in places_of(graph, group)]
    assert places
    assert {place.node for place in places} <= names
