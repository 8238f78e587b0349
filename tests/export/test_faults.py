"""An export that fails at any of its system calls leaves what was there before, or the new files whole."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import graphgrow as gg
from tools.faults import calls_watched

Export = Callable[[gg.Graph, Path], Any]
EXPORTS: dict[str, Export] = {
    "onnx": lambda graph, folder: gg.export_onnx(graph, folder / "model.onnx", external_data_above=0),
    "source": gg.export_source,
}


@pytest.fixture(scope="module")
def graphs() -> tuple[gg.Graph, gg.Graph]:
    torch.manual_seed(0)
    before = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3))
    return before, gg.apply(before, "widen(0, extra=2)")


def held(folder: Path) -> dict[str, bytes]:
    """The files there, without what a failing removal of a temporary folder left."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def whole(folder: Path) -> None:
    """The model's file, and the weights that it names."""
    if (folder / "model.onnx").exists():
        onnx.checker.check_model(onnx.load(folder / "model.onnx"))
    else:
        (name,) = set(re.findall(r"[\w.-]+\.safetensors\b", (folder / "model.py").read_text(encoding="utf-8")))
        assert load_file(folder / name)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_call_that_fails_leaves_a_whole_export(name: str, graphs: tuple[gg.Graph, gg.Graph], tmp_path: Path) -> None:
    export, names = EXPORTS[name], list[str]()
    with calls_watched(lambda _, call: names.append(call)):
        export(graphs[0], tmp_path / "once")
    assert {"fsync", "replace"} <= set(names)
    ends = []
    for at in [number for number, call in enumerate(names, 1) if call in ("fsync", "replace")]:
        folder = tmp_path / str(at)
        export(graphs[0], folder)
        old, seen = held(folder), itertools.count(1)

        def fail(_: int, call: str, at: int = at, seen: itertools.count[int] = seen) -> None:
            if next(seen) == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call)

        with calls_watched(fail), pytest.raises(gg.ExportError, match=r"No space left on device; make room") as caught:
            export(graphs[1], folder)
        assert str(folder) in str(caught.value)
        ends.append(held(folder) == old)
        whole(folder)
    assert ends == sorted(ends, reverse=True)
    assert ends[0]
