"""A model that hands out a cache is asked for none; what else it is called with stays."""

from __future__ import annotations

from pathlib import Path
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


class _Further(_Caching):
    """Takes the input without naming it, as the models do whose decorator fills in what a configuration says."""

    def forward(self, x: torch.Tensor, **more: Any) -> Any:  # type: ignore[override]
        y, cache = super().forward(x if more.get("scale") is None else x * more["scale"], more.get("use_cache"))
        return (y, cache)


@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_a_graph_is_called_without_the_input_that_was_left_out(way: str) -> None:
    model, x = _Caching().eval(), torch.randn(2, 3)
    graph = gg.trace(model, x, way=way)
    assert "its cache of past keys and values is left out" in graph.explain()
    assert torch.equal(graph.module(x)[0], model(x)[0])
    assert torch.equal(graph.module(x, use_cache=False)[0], model(x)[0])
    with pytest.raises(ValueError, match="captured with use_cache=False"):
        graph.module(x, use_cache=True)


@pytest.mark.parametrize("way", ["fx", "dynamo"])
@pytest.mark.parametrize("more", [{}, {"scale": torch.full((3,), 0.5)}])
def test_the_same_where_it_is_one_of_further_keyword_inputs(
    way: str, more: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    model, x = _Further().eval(), torch.randn(2, 3)
    graph = gg.trace(model, x, more, way=way)
    gg.save(gg.apply(graph, "widen(first, extra=2)"), tmp_path / "wider")
    for module in (graph.module, gg.load(tmp_path / "wider", model).module):
        torch.testing.assert_close(module(x, **more)[0], model(x, **more)[0])
        torch.testing.assert_close(module(x, use_cache=False, **more)[0], model(x, **more)[0])
        with pytest.raises(ValueError, match="use_cache"):
            module(x, use_cache=True, **more)


def test_what_is_left_out() -> None:
    x = torch.randn(2, 3)
    assert left_out(_Caching(), {}, (x, _Cache()))[0] == {"use_cache": False}
    assert left_out(_Caching(), {"use_cache": True}, (x, _Cache())) == ({}, ())
    assert left_out(_Caching(), {}, (x, None)) == ({}, ())
    assert left_out(nn.Linear(3, 2), {}, (x, _Cache())) == ({}, ())
    assert left_out(_Uncached(), {}, (x, _Cache()))[0] == {"use_cache": False}
