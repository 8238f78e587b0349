"""Which models and inputs are taken: what a graph would silently lose is unwrapped with a note, or refused."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from graphgrow.capture.model.compiled import is_compiled
from graphgrow.capture.model.outputs import leaves_of
from graphgrow.capture.model.parametrised import is_parametrised, parametrisation_notes
from graphgrow.errors import CaptureError
from graphgrow.ir.hooks import hook_of, saves_its_own_way

_WRAPPED = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: Any) -> tuple[nn.Module, list[str]]:
    """The model inside of torch.compile, DataParallel and the like, and a note for each wrapping.

    Raises:
        CaptureError: if it is no module, or wrapped so that it cannot be had.
    """
    notes = []
    while True:
        if not isinstance(model, nn.Module):
            raise CaptureError(f"gg.trace wants an nn.Module, not {type(model).__name__}")
        if isinstance(model, torch.jit.ScriptModule):
            raise CaptureError("the model is scripted; pass the Python module that it was made from")
        if "FullyShardedDataParallel" in type(model).__name__ or "FSDP" in type(model).__name__:
            raise CaptureError(f"the model is sharded by {type(model).__name__}; capture it before it is")
        if is_compiled(model):
            model = model._orig_mod
            notes.append("the model was compiled by torch.compile; the graph is that of the original, model._orig_mod")
        elif isinstance(model, _WRAPPED):
            notes.append(f"the model was wrapped in {type(model).__name__}; the graph is that of model.module")
            model = model.module
        else:
            return model, notes


def admit(model: nn.Module) -> list[str]:
    """See that a graph can stand for the model, parameters and hooks included.

    Returns:
        Notes on what the graph does not take over.

    Raises:
        CaptureError: if it cannot; names the submodule or the parameter.
    """
    notes = []
    for path, module in model.named_modules():
        _admit_module(path, module, model)
        notes += parametrisation_notes(path, module)
        if is_compiled(module):
            notes.append(f"`{path}` was compiled by torch.compile; in the graph it is not: compile what has grown")
        if saves_its_own_way(module) and any(True for _ in module.children()) and not is_parametrised(module):
            notes.append(f"`{path or type(model).__name__}` has state_dict hooks, which the graph does not have")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise CaptureError(f"`{name}` is lazy and has no shape yet; call the model once before gg.trace")
        if parameter.layout is not torch.strided or parameter.is_nested:
            raise CaptureError(f"`{name}` is sparse or nested, which no axis rule covers")
        if parameter.is_quantized:
            raise CaptureError(
                f"`{name}` is quantised; capture the model in floating point and quantise what has grown"
            )
    for name, buffer in model.named_buffers():
        if buffer.layout is not torch.strided or buffer.is_nested:
            raise CaptureError(f"the buffer `{name}` is sparse or nested, which no axis rule covers; make it dense")
    return notes


def admit_inputs(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional ones and those by keyword.

    Raises:
        CaptureError: if they are no such, or tensors of a kind that no axis rule covers.
    """
    if kwargs is not None and not isinstance(kwargs, dict):
        raise CaptureError(f"example inputs by keyword are a dict of them by name, not a {type(kwargs).__name__}")
    if isinstance(args, dict):
        raise CaptureError(
            "example inputs are a tensor or a tuple; pass inputs by name as `kwargs`, an input that is a dict as (it,)"
        )
    whole = not isinstance(args, (tuple, list)) or hasattr(args, "_fields")
    positional, named = (args,) if whole else tuple(args), dict(kwargs or {})
    for leaf in leaves_of((positional, named)):
        if type(leaf).__module__ == "numpy":
            raise CaptureError("an example input is a numpy array; pass torch.from_numpy(array)")
        if not isinstance(leaf, torch.Tensor):
            continue
        kinds = {"nested": leaf.is_nested, "sparse": leaf.layout is not torch.strided, "complex": leaf.is_complex()}
        kind = next((word for word, found in {**kinds, "quantised": leaf.is_quantized}.items() if found), "")
        if kind:
            raise CaptureError(f"an example input is {kind}, which no axis rule covers; pass a dense tensor of reals")
    return positional, named


def _admit_module(path: str, module: nn.Module, model: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(f"`{path}` is scripted; pass the Python module that it was made from")
    if any(map(keyword.iskeyword, path.split("."))):
        raise CaptureError(f"`{path}` cannot be written as code: rename submodules called by a keyword of Python")
    if module is model and hook_of(module):
        raise CaptureError(f"the model itself has a {hook_of(module)}, which a graph cannot keep; remove it first")
    if ".quantized" in type(module).__module__ or ".qat" in type(module).__module__:
        if type(module).__name__ in ("DeQuantize", "Quantize", "FloatFunctional", "QFunctional"):
            return
        raise CaptureError(
            f"`{path}` is a {type(module).__module__}.{type(module).__name__}; capture the model in floating point and "
            "quantise what has grown"
        )


def hooked_leaves(model: nn.Module) -> list[str]:
    """The paths of submodules that stay whole because hooks are called with them."""
    return [path for path, module in model.named_modules() if path and hook_of(module) and not is_parametrised(module)]


def refuse_unknown_leaves(model: nn.Module, leaves: Sequence[Any]) -> None:
    """See that each leaf that the user names is there.

    Raises:
        CaptureError: if one is not.
    """
    parts = dict(model.named_modules())
    for leaf in leaves:
        if isinstance(leaf, str):
            if leaf not in parts:
                raise CaptureError(f"leaves: there is no submodule {leaf!r} in {type(model).__name__}")
            if is_compiled(parts[leaf]):
                raise CaptureError(f'leaves: `{leaf}` is under torch.compile; name "{leaf}._orig_mod"')
        elif not (isinstance(leaf, type) and issubclass(leaf, nn.Module)):
            raise CaptureError(f"leaves: wanted module classes and paths of submodules, not {leaf!r}")


def refuse_misfit(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """See that the forward can be called so.

    Raises:
        CaptureError: if not, with its signature.
    """
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise CaptureError(
            f"the example inputs do not fit {type(model).__name__}.forward{signature}: {error}"
        ) from error
