"""Capture: from a module and example inputs to a graph module that shares the module's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.assembly import assemble
from graphgrow.capture.graphs.batch_of_one import drop_idle_checks
from graphgrow.capture.graphs.both_modes import merged
from graphgrow.capture.graphs.inplace import thread_inplace
from graphgrow.capture.graphs.mode_guard import guard_mode, mode_reads
from graphgrow.capture.graphs.modes import flagged, prune, revive, same_structure
from graphgrow.capture.graphs.norms import raise_norms
from graphgrow.capture.model.admission import (
    admit,
    admit_inputs,
    hooked_leaves,
    refuse_misfit,
    refuse_unknown_leaves,
    unwrapped,
)
from graphgrow.capture.model.caches import left_out
from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.compiled import before_dynamo
from graphgrow.capture.model.drawn import given_where_needed
from graphgrow.capture.model.outputs import leaves_of, refuse_objects, register_classes
from graphgrow.capture.model.running import in_mode, leaves_recorded, place_of
from graphgrow.capture.model.trial import Trial
from graphgrow.capture.model.untouched import State, untouched
from graphgrow.capture.tracing.conditions import Outcomes, Undecided, deciding
from graphgrow.capture.tracing.tracer import ShapeTracer
from graphgrow.errors import CaptureError, GraphGrowError, TimeBudgetError
from graphgrow.ir.answers import Answers
from graphgrow.ir.bits import same_bits
from graphgrow.ir.inputs import InputSpec

Example = tuple[tuple[Any, ...], dict[str, Any]]
Leaves = Sequence[type[nn.Module] | str]
_BOTH = frozenset({"train", "eval"})
WAYS = ("auto", "fx", "dynamo")
_REMEDY = (
    ". If the place lies in a submodule whose inside need not grow, mark it as a leaf: "
    "gg.trace(model, args, leaves=[TheSubmodule])"
)


@dataclass(frozen=True)
class Capture:
    """A captured model.

    Attributes:
        module: the graph module; its leaf modules are shallow copies that share every tensor with the model.
        inputs: what it was captured with.
        way: how it was captured ("fx" or "dynamo").
        modes: the modes in which the graph is the model's ("train", "eval").
        notes: what a user should know, one sentence each.
        decided_by: of a graph of one mode, the paths of the modules whose mode decides; none for the whole model's.
        answers: what operators answered on the meta device meanwhile.
    """

    module: fx.GraphModule
    inputs: InputSpec
    way: str
    modes: frozenset[str]
    notes: tuple[str, ...]
    decided_by: tuple[str, ...] = ()
    answers: Answers = field(default_factory=Answers)


def capture(
    model: nn.Module,
    args: Any,
    kwargs: dict[str, Any] | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
    way: str = "auto",
    budget_s: float | None = None,
) -> Capture:
    """Capture a model: by tracing it with torch.fx, and where that fails with Dynamo.

    Args:
        model: any module; it is not changed, and the graph shares its parameters and buffers.
        args: example inputs, a tensor or a tuple of positional inputs.
        kwargs: example keyword inputs.
        leaves: module classes or paths that stay one node; what they touch cannot grow.
        way: "auto", or "fx" or "dynamo" to try that one alone.
        budget_s: seconds after which no further step begins, nor a trace or a recording goes on; None for no limit but
            one on each of Dynamo's recordings.

    Raises:
        TimeBudgetError: if the steps take longer than that.
        CaptureError: if the model or the inputs cannot be captured; names file and line of the model's code.
    """
    if way not in WAYS:
        raise CaptureError(f"there is no way {way!r} to capture a model; there are {', '.join(WAYS)}")
    model, notes = unwrapped(model)
    notes += admit(model)
    refuse_unknown_leaves(model, leaves)
    positional, named = admit_inputs(args, kwargs)
    register_classes((positional, named))
    inputs = InputSpec.of(positional, named)
    refuse_misfit(model, positional, named)
    hooked = hooked_leaves(model)
    notes += [f"`{path}` has a hook and stays one node, which cannot grow" for path in hooked]
    clock = Clock(budget_s)
    with untouched(model) as state:
        found = _captured(model, inputs, (positional, named), (*leaves, *hooked), way, state, clock)
        with clock.step("running the graph on drawn numbers"):
            found = _settled(found, model, (positional, named), state)
    if len(found.modes) == 1:
        guard_mode(found.module, next(iter(found.modes)), found.decided_by)
    return replace(found, notes=(*notes, *found.notes))


def _without_data(model: nn.Module, example: Example) -> bool:
    """Whether the model or an input is on the meta device."""
    inputs = (leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, torch.Tensor))
    return any(tensor.is_meta for tensor in (*model.parameters(), *inputs))


def _settled(found: Capture, model: nn.Module, example: Example, state: State) -> Capture:
    """The capture with inputs of which samples can be drawn."""
    if _without_data(model, example):
        return found
    training = "eval" not in found.modes
    inputs, notes = given_where_needed(found.inputs, found.module, *example, training, state.restore)
    return replace(found, inputs=inputs, notes=(*found.notes, *notes))


def _captured(
    model: nn.Module, inputs: InputSpec, example: Example, leaves: Leaves, way: str, state: State, clock: Clock
) -> Capture:
    trial, outputs, notes = None, dict[str, list[Any]](), tuple[str, ...]()
    if not _without_data(model, example):
        with leaves_recorded(model, leaves) as outputs:
            trial = Trial(model, *example, state, clock)
            more, notes = left_out(model, example[1], trial.answer)
        if more:
            example = (example[0], {**example[1], **more})
            inputs = InputSpec.of(*example)
            with leaves_recorded(model, leaves) as outputs:
                trial = Trial(model, *example, state, clock)
        refuse_objects(type(model).__name__, trial.answer)
    failure: CaptureError | None = None
    if way != "dynamo":
        try:
            found = _by_fx(model, inputs, example, leaves, outputs, trial, state, clock)
            return replace(found, notes=(*notes, *found.notes))
        except CaptureError as error:
            if way == "fx" or isinstance(error, TimeBudgetError):
                raise
            failure = error
            notes = (f"torch.fx could not capture it: {str(error).removesuffix(_REMEDY)}", *notes)
    from graphgrow.capture.dynamo.fallback import capture_with_dynamo  # with sympy, which takes long to load

    try:
        recorded = capture_with_dynamo(model, *example, trial, leaves, clock=clock)
    except CaptureError as error:
        if failure is None:
            raise
        first, second = str(failure).removesuffix(_REMEDY), str(error).removesuffix(".")
        if isinstance(error, TimeBudgetError):
            raise TimeBudgetError(f"{first}. Dynamo finds no graph in time: {second}{_REMEDY}") from error
        raise CaptureError(f"{first}. Dynamo finds no graph either: {second}{_REMEDY}") from error
    return Capture(
        recorded.module, inputs, "dynamo", recorded.modes, (*notes, *recorded.notes), answers=recorded.answers
    )


def _by_fx(
    model: nn.Module,
    inputs: InputSpec,
    example: Example,
    leaves: Leaves,
    leaf_outputs: dict[str, list[Any]],
    trial: Trial | None,
    state: State,
    clock: Clock,
) -> Capture:
    examples, fixed = _bind(model, *example)
    graphs, tracers, failures, decided_by, answers = {}, {}, {}, dict[str, None](), Answers()

    def make(ints_free: bool, outcomes: Outcomes) -> ShapeTracer:
        return ShapeTracer(examples, leaves, leaf_outputs, fixed, ints_free, clock, answers, outcomes)

    for mode in ("train", "eval"):
        try:
            graphs[mode], tracers[mode], read = _traced_in(mode, model, make, state, clock)
        except TimeBudgetError:
            raise
        except Exception as error:  # noqa: BLE001  # re-raised below, or noted where only this mode fails
            failures[mode] = error
        else:
            decided_by.update(read)
    present = "train" if model.training else "eval"
    if present in failures:
        raise _explain(failures[present], model) from failures[present]
    for mode, graph in graphs.items():
        thread_inplace(graph, model, tracers[mode].writes, tracers[mode].constants)
        prune(graph, model)
    held: dict[str, dict[str, Any]] = {
        mode: {**tracer.constants, **tracer.replaced} for mode, tracer in tracers.items()
    }
    notes: list[str] = []
    alike = len(graphs) == 2 and _same_constants(tracers["train"].constants, tracers["eval"].constants)
    if alike and same_structure(graphs["train"], graphs["eval"]):
        module = _assemble(model, graphs["train"], held["train"], flagged(graphs["train"], graphs["eval"]))
        modes, decided_by = _BOTH, {}
    else:
        found = _merged(model, graphs, held["train"], trial, decided_by) if alike and trial else None
        if found is not None:
            return Capture(found[0], inputs, "fx", _BOTH, found[1], answers=answers)
        other = "eval" if present == "train" else "train"
        why = f": {failures[other]}" if other in failures else ""
        notes.append(f"in {other} mode this model has another graph{why}; this one holds for {present} mode alone")
        module = _assemble(model, graphs[present], held[present])
        modes = frozenset({present})
    if trial is not None:
        modes, more = trial.of(module, modes)
        notes += more
        with clock.step("comparing graph and model for a batch of one"):
            drop_idle_checks(module, model, example, modes, state.restore)
    return Capture(module, inputs, "fx", modes, tuple(notes), tuple(decided_by), answers)


def _traced_in(
    mode: str, model: nn.Module, make: Callable[[bool, Outcomes], ShapeTracer], state: State, clock: Clock
) -> tuple[fx.Graph, ShapeTracer, dict[str, None]]:
    """The graph of one mode, its tracer, and the modules whose mode the forward was seen to read."""

    def record(tracer: ShapeTracer) -> tuple[fx.Graph, ShapeTracer, dict[str, None]]:
        try:
            with clock.step(f"tracing in {mode} mode"), in_mode(model, mode == "train"), mode_reads(model) as read:
                return tracer.trace(model), tracer, read
        finally:
            state.restore()

    def trace(outcomes: Outcomes) -> tuple[fx.Graph, ShapeTracer, dict[str, None]]:
        tracer = make(True, outcomes)
        try:
            return record(tracer)
        except (TimeBudgetError, Undecided):
            raise
        except Exception:
            if not tracer.ints:
                raise
            return record(make(False, outcomes))  # what needs numbers of Python's, as a key of a dictionary, has them

    return before_dynamo(lambda: deciding(trace))


def _merged(
    model: nn.Module,
    graphs: Mapping[str, fx.Graph],
    constants: Mapping[str, Any],
    trial: Trial,
    decided_by: Collection[str],
) -> tuple[fx.GraphModule, tuple[str, ...]] | None:
    """One graph for both modes where little differs, seen to do what the model does in each, and notes."""
    both = merged(graphs["train"], graphs["eval"], model, decided_by)
    if both is None:
        return None
    module = _assemble(model, both.graph, {**constants, **both.modules}, both.flagged)
    try:
        modes, notes = trial.of(module, _BOTH)
    except TimeBudgetError:
        raise
    except CaptureError:
        return None
    note = "its forward goes another way in train mode than in eval mode: the graph holds both, and picks by the mode"
    return (module, (note, *notes)) if modes == _BOTH else None


def _same_constants(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Whether the forward has made the same tensors of its own in both modes."""
    return first.keys() == second.keys() and all(
        tensor.is_meta or same_bits(tensor, second[name]) for name, tensor in first.items()
    )


def _bind(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Example values by parameter name of the forward (tensors and numbers), and those that the graph is fixed to."""
    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **kwargs)
    examples: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            examples[f"*{name}"] = bound.arguments.get(name, ())
            if examples[f"*{name}"] and any(p.kind is p.KEYWORD_ONLY for p in signature.parameters.values()):
                raise CaptureError(
                    f"the forward of {type(model).__name__} takes *{name} and inputs by keyword; wrap it"
                )
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            examples[f"**{name}"] = bound.arguments.get(name, {})
            continue
        value = bound.arguments.get(name, parameter.default)
        if type(value) in (int, float) or any(isinstance(leaf, torch.Tensor) for leaf in leaves_of(value)):
            examples[name] = value
        else:
            fixed[name] = value
    return examples, fixed


def _assemble(
    model: nn.Module, graph: fx.Graph, constants: Mapping[str, Any], flags: Iterable[fx.Node] = ()
) -> fx.GraphModule:
    """A graph module over shallow copies of the leaf modules; nodes with a mode flag become modules."""
    constants = dict(constants)

    def add(path: str, module: nn.Module) -> str:
        constants[path] = module
        return path

    revive(flags, add)
    module = assemble(model, graph, constants)
    raise_norms(module)
    return module


def _explain(error: Exception, model: nn.Module) -> GraphGrowError:
    """The error of a failed trace, with the place in the model's own code and what to do."""
    text = str(error) if isinstance(error, CaptureError) else f"{type(error).__name__}: {error}"
    return CaptureError(f"{type(model).__name__} cannot be traced: {text}{place_of(error)}{_REMEDY}")
