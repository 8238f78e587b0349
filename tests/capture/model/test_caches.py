"""A model that hands out a cache is asked for none; what else it is called with stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.model.caches import left_out


class _Cache:
    pass


class _Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, use_cache: bool | None = None) -> Any:
        y = self.last(self.first(x).relu())
        return (y, None) if use_cache is False else (y, _Cache())


class _Uncached(nn.Module):
    def forward(self, x: torch.Tensor, **more: Any) -> Any:
        return x


@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_a_graph_is_called_without_the_input_that_was_left_out(way: str) -> None:
    model, x = _Caching().eval(), torch.randn(2, 3)
    graph = gg.trace(model, x, way=way)
    assert "its cache of past keys and values is left out" in graph.explain()
    assert torch.equal(graph.module(x)[0], model(x)[0])
    assert torch.equal(graph.module(x, use_cache=False)[0], model(x)[0])
    with pytest.raises(ValueError, match="captured with use_cache=False"):
        graph.module(x, use_cache=True)


def test_what_is_left_out() -> None:
    x = torch.randn(2, 3)
    assert left_out(_Caching(), {}, (x, _Cache()))[0] == {"use_cache": False}
    assert left_out(_Caching(), {"use_cache": True}, (x, _Cache())) == ({}, ())
    assert left_out(_Caching(), {}, (x, None)) == ({}, ())
    assert left_out(nn.Linear(3, 2), {}, (x, _Cache())) == ({}, ())
    assert left_out(_Uncached(), {}, (x, _Cache()))[0] == {"use_cache": False}
