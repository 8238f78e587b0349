"""What takes a graph takes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg

WANT_A_GRAPH: dict[str, Callable[[Any, Path], object]] = {
    "gg.apply": lambda graph, _: gg.apply(graph, "widen(0, extra=1)"),
    "gg.scale": lambda graph, _: gg.scale(graph, width=2),
    "gg.plan_scale": lambda graph, _: gg.plan_scale(graph, width=2),
    "gg.grow_to": lambda graph, _: gg.grow_to(graph, nn.Linear(3, 2)),
    "gg.clean": lambda graph, _: gg.clean(graph),
    "gg.save": lambda graph, folder: gg.save(graph, folder / "saved"),
    "gg.export_onnx": lambda graph, folder: gg.export_onnx(graph, folder / "m.onnx"),
    "gg.export_source": lambda graph, folder: gg.export_source(graph, folder / "source"),
    "gg.Grower": lambda graph, _: gg.Grower(graph),
}


@pytest.mark.parametrize("call", WANT_A_GRAPH)
def test_a_module_is_no_graph(call: str, tmp_path: Path) -> None:
    with pytest.raises(gg.Unsupported, match=rf"{call} takes a graph, not a Linear: graph = gg\.trace\(model, "):
        WANT_A_GRAPH[call](nn.Linear(3, 2), tmp_path)
    module = gg.trace(nn.Linear(3, 2), torch.randn(2, 3)).module
    with pytest.raises(gg.Unsupported, match=rf"{call} takes a graph, .*: pass the graph, not its `module`"):
        WANT_A_GRAPH[call](module, tmp_path)
    assert not list(tmp_path.iterdir())
