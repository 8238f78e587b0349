"""Capture: from a module and example inputs to a graph module that shares the module's parameters."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.agreement import refuse_another_function
from graphgrow.capture.assembly import assemble
from graphgrow.capture.fallback import capture_with_dynamo
from graphgrow.capture.inplace import thread_inplace
from graphgrow.capture.modes import prune, revive, same_structure
from graphgrow.capture.outputs import leaves_of, register_classes
from graphgrow.capture.running import in_mode, place_of, run_in_eval
from graphgrow.capture.tracer import ShapeTracer
from graphgrow.errors import CaptureError, GraphGrowError
from graphgrow.ir.inputs import InputSpec
from graphgrow.ir.meta import to_meta

WAYS = ("auto", "fx", "dynamo")


@dataclass(frozen=True)
class Capture:
    """A captured model.

    Attributes:
        module: the graph module; its leaf modules are shallow copies that share every tensor with the model.
        inputs: what it was captured with.
        way: how it was captured ("fx" or "dynamo").
        modes: the modes in which the graph is the model's ("train", "eval").
        notes: what a user should know, one sentence each.
    """

    module: fx.GraphModule
    inputs: InputSpec
    way: str
    modes: frozenset[str]
    notes: tuple[str, ...]


def capture(
    model: nn.Module,
    args: Any,
    kwargs: dict[str, Any] | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
    way: str = "auto",
) -> Capture:
    """Capture a model: by tracing it with torch.fx, and where that fails with Dynamo.

    Args:
        model: any module; it is not changed, and the graph shares its parameters and buffers.
        args: example inputs, a tensor or a tuple of positional inputs.
        kwargs: example keyword inputs.
        leaves: module classes or paths that stay one node; what they touch cannot grow.
        way: "auto", or "fx" or "dynamo" to try that one alone.

    Raises:
        CaptureError: if the model or the inputs cannot be captured; names file and line of the model's code.
    """
    if way not in WAYS:
        raise CaptureError(f"there is no way {way!r} to capture a model; there are {', '.join(WAYS)}")
    _refuse(model)
    inputs = InputSpec.of(args, kwargs)
    positional = (args,) if isinstance(args, torch.Tensor) or not isinstance(args, Sequence) else tuple(args)
    named = dict(kwargs or {})
    _refuse_misfit(model, positional, named)
    leaf_outputs, answer = _run_once(model, positional, named, leaves)
    notes: tuple[str, ...] = ()
    if way != "dynamo":
        try:
            return _by_fx(model, inputs, (positional, named), leaves, leaf_outputs, answer)
        except CaptureError as error:
            if way == "fx":
                raise
            failure, notes = error, (f"torch.fx could not capture it: {error}",)
    try:
        found = capture_with_dynamo(model, positional, named, answer, leaves)
    except CaptureError as error:
        if not notes:
            raise
        raise CaptureError(f"{failure}. Dynamo finds no graph either: {error}") from error
    return Capture(found.module, InputSpec.of(positional, found.kwargs), "dynamo", found.modes, (*notes, *found.notes))


def _by_fx(
    model: nn.Module,
    inputs: InputSpec,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    leaves: Sequence[type[nn.Module] | str],
    leaf_outputs: dict[str, list[Any]],
    answer: Any,
) -> Capture:
    examples, fixed = _bind(model, *example)
    graphs, tracers, failures = {}, {}, {}
    for mode in ("train", "eval"):
        with in_mode(model, mode == "train"), torch.random.fork_rng(devices=[]):
            tracer = ShapeTracer(examples, leaves, leaf_outputs, fixed)
            try:
                graphs[mode] = tracer.trace(model)
                tracers[mode] = tracer
            except Exception as error:  # noqa: BLE001  # re-raised below, or noted where only this mode fails
                failures[mode] = error
    present = "train" if model.training else "eval"
    if present in failures:
        raise _explain(failures[present], model) from failures[present]
    notes: list[str] = []
    modes = frozenset({"train", "eval"})
    for mode, graph in graphs.items():
        thread_inplace(graph, model, tracers[mode].writes, tracers[mode].constants)
        prune(graph, model)
    alive = len(graphs) == 2 and same_structure(graphs["train"], graphs["eval"])
    if not alive:
        other = "eval" if present == "train" else "train"
        modes = frozenset({present})
        why = f": {failures[other]}" if other in failures else ""
        notes.append(f"in {other} mode this model has another graph{why}; this one holds for {present} mode alone")
        if present == "train":
            notes.append("in train mode the graph was not compared with the model")
    kept = "train" if alive else present
    module = _assemble(model, graphs[kept], tracers[kept], graphs["eval"] if alive else None)
    if answer is not None and "eval" in modes:
        refuse_another_function(model, run_in_eval(module, *example), answer)
    return Capture(module, inputs, "fx", modes, tuple(notes))


def _refuse_misfit(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise CaptureError(
            f"the example inputs do not fit {type(model).__name__}.forward{signature}: {error}"
        ) from error


def _refuse(model: nn.Module) -> None:
    """Models whose wrapping or parametrisation a graph would silently lose."""
    if not isinstance(model, nn.Module):
        raise CaptureError(f"gg.trace wants an nn.Module, not {type(model).__name__}")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise CaptureError(f"the model is wrapped in {type(model).__name__}; pass the inner one: model.module")
    if hasattr(model, "_orig_mod"):
        raise CaptureError("the model is compiled by torch.compile; pass the original one: model._orig_mod")
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError("the model is scripted; pass the Python module that it was made from")
    for path, module in model.named_modules():
        if hasattr(module, "parametrizations"):
            raise CaptureError(
                f"`{path}` has parametrised tensors ({', '.join(module.parametrizations)}); materialise them first: "
                "torch.nn.utils.parametrize.remove_parametrizations(module, name)"
            )
        hooks = list(module._forward_pre_hooks.values())
        if any("weight_norm" in type(h).__module__ or "spectral_norm" in type(h).__module__ for h in hooks):
            raise CaptureError(f"`{path}` has a weight_norm or spectral_norm hook; remove it first")
        if any(map(keyword.iskeyword, path.split("."))):
            raise CaptureError(f"`{path}` cannot be written as code: rename submodules called by a keyword of Python")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise CaptureError(f"`{name}` is lazy and has no shape yet; call the model once before gg.trace")
        if parameter.is_complex() or parameter.layout is not torch.strided:
            raise CaptureError(f"`{name}` is complex or sparse, which no axis rule covers")


def _bind(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Example values by parameter name of the forward (tensors and numbers), and those that the graph is fixed to."""
    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **kwargs)
    examples: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            if bound.arguments.get(name):
                raise CaptureError(f"the forward of {type(model).__name__} takes its inputs through *{name}; wrap it")
            continue
        value = bound.arguments.get(name, parameter.default)
        if isinstance(value, torch.Tensor) or type(value) in (int, float):
            examples[name] = value
        elif any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value)):
            raise CaptureError(f"the input `{name}` is a container of tensors; wrap the model to take them one by one")
        else:
            fixed[name] = value
    return examples, fixed


def _run_once(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: Sequence[type[nn.Module] | str]
) -> tuple[dict[str, list[Any]], Any]:
    """Run the model on its examples, so that a misfit speaks in torch's own words; leaves no trace of it.

    Returns:
        By path, what the user's leaves returned, one item a call, on the meta device; and what the model returned, None
        where it holds no numbers.
    """
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    if any(p.is_meta for p in model.parameters()) or any(t.is_meta for t in tensors):
        return {}, None
    outputs: dict[str, list[Any]] = {}
    classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
    hooks = [
        part.register_forward_hook(lambda *call, path=path: outputs.setdefault(path, []).append(to_meta(call[2])))
        for path, part in model.named_modules()
        if path in leaves or isinstance(part, classes)
    ]
    try:
        output = run_in_eval(model, args, kwargs)
    except Exception as error:  # any error of the user's own code, passed on with its place
        shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors)
        raise CaptureError(
            f"{type(model).__name__} fails on its own example inputs ({shapes}): "
            f"{type(error).__name__}: {error}{place_of(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    register_classes(output)
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves_of(output)):
        raise CaptureError(f"{type(model).__name__} returns no tensor but {type(output).__name__}")
    return outputs, output


def _assemble(model: nn.Module, graph: fx.Graph, tracer: ShapeTracer, evaluation: fx.Graph | None) -> fx.GraphModule:
    """A graph module over shallow copies of the leaf modules."""
    constants: dict[str, Any] = dict(tracer.constants)

    def add(path: str, module: nn.Module) -> str:
        constants[path] = module
        return path

    if evaluation is not None:
        revive(graph, evaluation, add)
    return assemble(model, graph, constants)


def _explain(error: Exception, model: nn.Module) -> GraphGrowError:
    """The error of a failed trace, with the place in the model's own code and what to do."""
    text = str(error) if isinstance(error, CaptureError) else f"{type(error).__name__}: {error}"
    return CaptureError(
        f"{type(model).__name__} cannot be traced: {text}{place_of(error)}. If the place lies in a submodule whose "
        "inside need not grow, mark it as a leaf: gg.trace(model, args, leaves=[TheSubmodule])"
    )
