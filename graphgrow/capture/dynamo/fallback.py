"""Capture with Dynamo: for models that torch.fx cannot trace."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.dynamo.raising import raise_graph
from graphgrow.capture.dynamo.recast import dtypes_of_values, recast
from graphgrow.capture.dynamo.recording import Recording, record
from graphgrow.capture.dynamo.sizes import guard_sizes
from graphgrow.capture.graphs.assembly import assemble
from graphgrow.capture.graphs.inplace import thread_inplace
from graphgrow.capture.graphs.modes import flagged, prune, revive, same_structure
from graphgrow.capture.graphs.norms import raise_norms
from graphgrow.capture.model.caches import WITHOUT
from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.running import in_mode
from graphgrow.capture.model.trial import Trial
from graphgrow.errors import CaptureError, TimeBudgetError
from graphgrow.ir.answers import Answers
from graphgrow.ir.editor import shallow_copy
from graphgrow.ir.meta import MetaRunner, to_meta

MOST_S = 300.0
"""Processor time of a recording where no budget was given: Dynamo may take far longer to come to what it refuses."""


@dataclass(frozen=True)
class Captured:
    """A model captured by Dynamo.

    Attributes:
        module: the graph module, called like the model.
        modes: in which the graph is the model's.
        notes: what a user should know.
        answers: what operators answered on the meta device meanwhile.
    """

    module: fx.GraphModule
    modes: frozenset[str]
    notes: tuple[str, ...]
    answers: Answers


def capture_with_dynamo(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    trial: Trial | None,
    leaves: Sequence[type[nn.Module] | str] = (),
    *,
    clock: Clock,
) -> Captured:
    """Capture a model by recording it with Dynamo and raising the record to the model's layers.

    Args:
        model: left as it is; the graph shares its tensors.
        args: positional example inputs.
        kwargs: keyword example inputs.
        trial: of the model on them; None where it holds no numbers.
        leaves: module classes or paths that stay one node.
        clock: times the steps.

    Raises:
        TimeBudgetError: if the time is over, or a recording takes longer than it may without a budget.
        CaptureError: if there is no single graph, or it computes something else than the model.
    """
    notes, answers = list[str](), Answers()
    assumed = frozenset(name for name, value in WITHOUT.items() if kwargs.get(name) is value)
    inputs = _by_name(model, args, kwargs)
    present = "train" if model.training else "eval"
    constants: dict[str, Any] = {}
    graphs, failures = {}, {}
    recordings: dict[str, Recording] = {}
    for mode in (present, "eval" if present == "train" else "train"):
        try:
            step = clock.step(f"recording with Dynamo in {mode} mode", MOST_S)
            with step, in_mode(model, mode == "train"), torch.random.fork_rng(devices=[]):
                recordings[mode] = record(model, inputs, leaves, clock)
        except CaptureError as error:
            if mode == present or isinstance(error, TimeBudgetError):
                raise
            failures[mode] = error
    recordings = recast(model, recordings, inputs, leaves, clock)
    for mode in recordings:
        try:
            graphs[mode] = raise_graph(model, recordings[mode], inputs, constants, assumed)
        except CaptureError as error:
            if mode == present:
                raise
            failures[mode] = error
            break
        _thread(graphs[mode], model, inputs, constants, answers)
        prune(graphs[mode], model)
    alive = len(graphs) == 2 and same_structure(graphs["train"], graphs["eval"])
    modes = frozenset({"train", "eval"} if alive else {present})
    if not alive:
        other = "eval" if present == "train" else "train"
        why = f": {failures[other]}" if failures else ""
        notes.append(f"in {other} mode this model has another graph{why}; this one holds for {present} mode alone")
    graph = graphs["train"] if alive else graphs[present]
    if alive:
        revive(flagged(graph, graphs["eval"]), lambda path, module: constants.setdefault(path, module) and path)
    _refuse_higher_order(graph)
    module = assemble(model, graph, constants)
    _give_examples(module.graph, module, inputs, answers)
    check = recordings[present].dtypes
    raise_norms(module, dtypes_of_values(module, inputs, check.admitted if check else ()))
    if trial is not None:
        modes, found = trial.of(module, modes)
        notes += found
        with clock.step("comparing graph and model at other sizes"):
            notes += guard_sizes(model, module, recordings[present], inputs, training="eval" not in modes)
    return Captured(module, modes, tuple(notes), answers)


def _thread(
    graph: fx.Graph, model: nn.Module, inputs: Mapping[str, Any], constants: Mapping[str, Any], answers: Answers
) -> None:
    """Let later readers of overwritten tensors read what was written."""
    holder = shallow_copy(model)
    for name, constant in constants.items():
        if isinstance(constant, torch.Tensor):
            holder.register_buffer(name, constant)
    _give_examples(graph, holder, inputs, answers)
    thread_inplace(graph, holder, made=constants)


def _refuse_higher_order(graph: fx.Graph) -> None:
    """Operators over pieces of code: a branch on values, a loop, an autograd function with a backward of its own.

    Raises:
        CaptureError: if there is one; with its place in the model's code.
    """
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise CaptureError(f"`{node.name}` is an operator over pieces of code{_place(node)}")


def _give_examples(graph: fx.Graph, holder: nn.Module, inputs: Mapping[str, Any], answers: Answers) -> None:
    """Give every node its example value: each operator must work out shapes without numbers, as the analysis does.

    Raises:
        CaptureError: if one does not; with its place in the model's code.
    """
    runner, values = MetaRunner(holder, answers), {name: to_meta(value) for name, value in inputs.items()}
    for node in graph.nodes:
        if node.op == "output":
            return
        if node.op == "placeholder":
            node.meta["value"] = values[str(node.target)]
            continue
        try:
            node.meta["value"] = runner.run_node(node)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            name = getattr(node.target, "__name__", node.target)
            raise CaptureError(
                f"`{name}` needs the values of a tensor, or cannot be run without data: {error}{_place(node)}"
            ) from error


def _place(node: fx.Node) -> str:
    """File and line of the model's code that a node stems from."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines() if line.strip().startswith("File ")]
    return f" (at {lines[-1]})" if lines else ""


def _by_name(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs by name: every parameter of the forward, its default where none is given, then further keywords."""
    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **kwargs)
    inputs: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            further = bound.arguments.get(name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL:
            if bound.arguments.get(name):
                raise CaptureError(f"the forward of {type(model).__name__} takes its inputs through *{name}; wrap it")
        else:
            inputs[name] = bound.arguments.get(name, parameter.default)
    return {**inputs, **further}
