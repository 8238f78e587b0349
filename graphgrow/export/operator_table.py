"""The exporter's table of operators, which torch parses from sources for each export, kept for the process."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_MODULE = "torch.onnx._internal.exporter._registration"


@contextmanager
def operator_table_kept() -> Iterator[None]:
    """Give each export the table that the first one built for the same opset: a third of an export of a small model.

    The table is not written to, as long as no translations of the user's own are asked for. Where a torch keeps it
    elsewhere, each export builds its own, and is slower.
    """
    try:
        kind: Any = importlib.import_module(_MODULE).ONNXRegistry
        original = kind.__dict__["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        yield
        return
    kind.from_torchlib = _kept(original.__get__(None, kind))
    try:
        yield
    finally:
        kind.from_torchlib = original


@functools.cache
def _kept(build: Callable[..., Any]) -> Any:
    return staticmethod(functools.cache(build))
