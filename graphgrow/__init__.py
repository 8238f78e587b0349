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
    FolderError,
    GraphGrowError,
    LedgerError,
    ModeError,
    ModelError,
    MutationError,
    NotPreserved,
    OptimizerError,
    RuleError,
    SearchError,
    SignalError,
    StructureError,
    TimeBudgetError,
    TrainingError,
    Unsupported,
)

if TYPE_CHECKING:
    from graphgrow.bench.runtime import benchmark as benchmark
    from graphgrow.bench.runtime import compare as compare
    from graphgrow.bulk.clean import clean as clean
    from graphgrow.bulk.grow_to import Grown as Grown
    from graphgrow.bulk.grow_to import grow_to as grow_to
    from graphgrow.bulk.scale import ScalePlan as ScalePlan
    from graphgrow.bulk.scale import plan_scale as plan_scale
    from graphgrow.bulk.scale import scale as scale
    from graphgrow.export.to_onnx import export_onnx as export_onnx
    from graphgrow.graph import Graph as Graph
    from graphgrow.network.ledger import Ledger as Ledger
    from graphgrow.ops.registry import axis_rule as axis_rule
    from graphgrow.own_class.to_model import to_model as to_model
    from graphgrow.pretrained.save import save_pretrained as save_pretrained
    from graphgrow.rewrite.apply import apply as apply
    from graphgrow.rewrite.contract import Mutation as Mutation
    from graphgrow.rewrite.registry import pass_names as pass_names
    from graphgrow.rewrite.registry import register_pass as register_pass
    from graphgrow.rewrite.roles import register_optimizer as register_optimizer
    from graphgrow.rewrite.text import parse_mutation as parse_mutation
    from graphgrow.rulecheck.check import check_rule as check_rule
    from graphgrow.source.write import export_source as export_source
    from graphgrow.stage.run import run_stage as run_stage
    from graphgrow.store.folder import load as load
    from graphgrow.store.folder import save as save
    from graphgrow.store.tracing import replay as replay
    from graphgrow.store.tracing import trace as trace
    from graphgrow.train.budget import Budget as Budget
    from graphgrow.train.grower import Grower as Grower
    from graphgrow.train.warm_up import warm_up as warm_up
    from graphgrow.verification.verdict import Verdict as Verdict
    from graphgrow.verification.verify import verify as verify

__version__ = "0.1.0"

# Loaded when first asked for, so that `import graphgrow` stays quick.
_HOMES = {
    "Budget": "train.budget",
    "Graph": "graph",
    "Grower": "train.grower",
    "Grown": "bulk.grow_to",
    "Ledger": "network.ledger",
    "Mutation": "rewrite.contract",
    "ScalePlan": "bulk.scale",
    "Verdict": "verification.verdict",
    "apply": "rewrite.apply",
    "axis_rule": "ops.registry",
    "benchmark": "bench.runtime",
    "check_rule": "rulecheck.check",
    "clean": "bulk.clean",
    "compare": "bench.runtime",
    "export_onnx": "export.to_onnx",
    "grow_to": "bulk.grow_to",
    "export_source": "source.write",
    "load": "store.folder",
    "parse_mutation": "rewrite.text",
    "pass_names": "rewrite.registry",
    "plan_scale": "bulk.scale",
    "register_optimizer": "rewrite.roles",
    "register_pass": "rewrite.registry",
    "replay": "store.tracing",
    "run_stage": "stage.run",
    "save": "store.folder",
    "save_pretrained": "pretrained.save",
    "scale": "bulk.scale",
    "to_model": "own_class.to_model",
    "trace": "store.tracing",
    "verify": "verification.verify",
    "warm_up": "train.warm_up",
}

__all__ = [
    "BenchmarkError",
    "Budget",
    "CaptureError",
    "Declined",
    "ExportError",
    "FolderError",
    "Graph",
    "GraphGrowError",
    "Grower",
    "Grown",
    "Ledger",
    "LedgerError",
    "ModeError",
    "ModelError",
    "Mutation",
    "MutationError",
    "NotPreserved",
    "OptimizerError",
    "RuleError",
    "ScalePlan",
    "SearchError",
    "SignalError",
    "StructureError",
    "TimeBudgetError",
    "TrainingError",
    "Unsupported",
    "Verdict",
    "apply",
    "axis_rule",
    "benchmark",
    "check_rule",
    "clean",
    "compare",
    "export_onnx",
    "export_source",
    "grow_to",
    "load",
    "parse_mutation",
    "pass_names",
    "plan_scale",
    "register_optimizer",
    "register_pass",
    "replay",
    "run_stage",
    "save",
    "save_pretrained",
    "scale",
    "to_model",
    "trace",
    "verify",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
