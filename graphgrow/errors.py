"""The errors of graphgrow: each says what was seen, what was wanted, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The end of an error about a name that is not known: up to three that are like it, or else where to find them."""
    close = difflib.get_close_matches(name, list(known), 3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else otherwise


class GraphGrowError(Exception):
    """Base class of every error that graphgrow raises on purpose."""


class CaptureError(GraphGrowError):
    """The model, or the example inputs, cannot be captured into a graph."""


class TimeBudgetError(CaptureError):
    """A capture takes longer than it was given; says which steps took how long."""


class ModeError(GraphGrowError):
    """A graph that holds for one mode alone is called, or is to be trained or evaluated, in the other."""


class Unsupported(GraphGrowError):
    """An operator, a group or a model admits no such rewrite; names the node and the reason."""


class Declined(Unsupported):
    """A pass says no to one mutation, with the nodes and the reason; nothing was changed."""


class MutationError(GraphGrowError):
    """A mutation's text cannot be read, or names an unknown pass, group or option."""


class RuleError(GraphGrowError):
    """An axis rule cannot be registered for such a target, or a target has one already."""


class StructureError(GraphGrowError):
    """A rewritten graph has other shapes than its axes predict: a defect of a rule, found early."""


class NotPreserved(GraphGrowError):
    """A rewrite changed what the model computes (or nothing could be said about it)."""


class OptimizerError(GraphGrowError):
    """The optimizer keeps state that graphgrow does not know how to carry over."""


class LedgerError(GraphGrowError):
    """A ledger or a saved folder is damaged, foreign, or newer than this version reads."""


class FolderError(GraphGrowError):
    """A folder in which one process works at a time is another's or cannot be locked, or one holds a model already."""


class ExportError(GraphGrowError):
    """The ONNX export failed, or its outputs disagree with torch."""


class BenchmarkError(GraphGrowError):
    """A file cannot be benchmarked: missing, not ONNX, or refused by onnxruntime."""


class SignalError(GraphGrowError):
    """A signal cannot be measured here, or nothing was seen yet that it could be computed from."""


class DataError(GraphGrowError):
    """Data cannot be had: the name or an option is unknown, or a file is missing, foreign or too small."""


class RecipeError(GraphGrowError):
    """A recipe cannot be read, or asks for what cannot be done."""


class TrainingError(GraphGrowError):
    """A policy, a schedule or a checkpoint cannot be used as it is."""


class ModelError(GraphGrowError):
    """A model's name or factory cannot be resolved."""


class SearchError(GraphGrowError):
    """A study or an engine of a search cannot be used as it is."""
