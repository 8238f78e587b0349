"""graphgrow: change the architecture of a torch model while it keeps its function.

import graphgrow as gg

graph = gg.trace(model, example_inputs)
grown = gg.apply(graph, "widen(layer1.0.conv1, extra=16)")
print(gg.verify(graph, grown))
grown.module  # an ordinary nn.Module: train it, save it, export it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphgrow.errors import (
    BenchmarkError,
    CaptureError,
    Declined,
    ExportError,
    GraphGrowError,
    LedgerError,
    ModelError,
    MutationError,
    NotPreserved,
    OptimizerError,
    StructureError,
    Unsupported,
)

if TYPE_CHECKING:
    from graphgrow.bench.runtime import benchmark as benchmark
    from graphgrow.bench.runtime import compare as compare
    from graphgrow.export.source import export_source as export_source
    from graphgrow.export.to_onnx import export_onnx as export_onnx
    from graphgrow.graph import Graph as Graph
    from graphgrow.rewrite.apply import apply as apply
    from graphgrow.rewrite.contract import Mutation as Mutation
    from graphgrow.rewrite.ledger import Ledger as Ledger
    from graphgrow.rewrite.registry import pass_names as pass_names
    from graphgrow.rewrite.text import parse_mutation as parse_mutation
    from graphgrow.stage.run import run_stage as run_stage
    from graphgrow.store.folder import load as load
    from graphgrow.store.folder import save as save
    from graphgrow.store.tracing import replay as replay
    from graphgrow.store.tracing import trace as trace
    from graphgrow.verification.verdict import Verdict as Verdict
    from graphgrow.verification.verify import verify as verify

__version__ = "0.1.0"

# Loaded when first asked for, so that `import graphgrow` stays quick.
_HOMES = {
    "Graph": "graph",
    "Ledger": "rewrite.ledger",
    "Mutation": "rewrite.contract",
    "Verdict": "verification.verdict",
    "apply": "rewrite.apply",
    "benchmark": "bench.runtime",
    "compare": "bench.runtime",
    "export_onnx": "export.to_onnx",
    "export_source": "export.source",
    "load": "store.folder",
    "parse_mutation": "rewrite.text",
    "pass_names": "rewrite.registry",
    "replay": "store.tracing",
    "run_stage": "stage.run",
    "save": "store.folder",
    "trace": "store.tracing",
    "verify": "verification.verify",
}

__all__ = [
    "BenchmarkError",
    "CaptureError",
    "Declined",
    "ExportError",
    "Graph",
    "GraphGrowError",
    "Ledger",
    "LedgerError",
    "ModelError",
    "Mutation",
    "MutationError",
    "NotPreserved",
    "OptimizerError",
    "StructureError",
    "Unsupported",
    "Verdict",
    "apply",
    "benchmark",
    "compare",
    "export_onnx",
    "export_source",
    "load",
    "parse_mutation",
    "pass_names",
    "replay",
    "run_stage",
    "save",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
