"""A model as a function of a flat list of tensors: what ONNX knows, with readable names for each of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.errors import ExportError


class FlatModule(nn.Module):
    """Calls `module` with tensors in the places where its example inputs have tensors; all else stays as it was.

    Args:
        module: the model; it is aliased, not copied.
        args: positional example inputs, nested as the model takes them.
        kwargs: keyword example inputs.
    """

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        leaves, self._structure = pytree.tree_flatten((args, dict(kwargs)))
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self._constants = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The output's tensors in the order of the flattened output; numbers and None in it are left out."""
        leaves = pytree.tree_leaves(self.call(*tensors))
        return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))

    def call(self, *tensors: torch.Tensor) -> Any:
        """The output of the model itself, with its structure."""
        leaves = list(self._constants)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return self.module(*args, **kwargs)


def tensors_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors of nested inputs, in the order in which `FlatModule` takes them."""
    return [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, torch.Tensor)]


def input_names(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Names for the tensors of the inputs: the parameter names of `forward`, and the keys of what is nested."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), "input")
    names = []
    for path, leaf in pytree.tree_flatten_with_path((args, dict(kwargs)))[0]:
        if not isinstance(leaf, torch.Tensor):
            continue
        side, first, *inner = [_step(key) for key in path]
        if side == "0":
            index = int(first)
            first = positional[index] if index < len(positional) else f"{rest}_{index - len(positional)}"
        names.append("_".join([first, *inner]))
    return _unique(names, taken=())


def output_names(output: Any, taken: Iterable[str]) -> list[str]:
    """Names for the tensors of an output: `output`, `output_0`, or the keys of a dictionary.

    Args:
        output: what the model returned, nested tuples, lists, dictionaries and registered classes.
        taken: names that are in use, the inputs'.

    Raises:
        ExportError: if the output holds no tensor, or an object that ONNX cannot carry.
    """
    names = []
    for path, leaf in pytree.tree_flatten_with_path(output)[0]:
        if isinstance(leaf, torch.Tensor):
            keys = [_step(key) for key in path]
            names.append("_".join(keys if keys and not keys[0].isdigit() else ["output", *keys]))
        elif leaf is not None and not isinstance(leaf, (bool, int, float, str)):
            raise ExportError(
                f"the model returns a {type(leaf).__name__}, wanted tensors in tuples, lists or dictionaries; "
                "wrap the model in a module that returns the tensors of it"
            )
    if not names:
        raise ExportError(f"the model returns no tensor: {output!r:.80}; wrap it in a module that returns one")
    return _unique(names, taken)


def _step(key: Any) -> str:
    """One step of a pytree path as text: an index, a dictionary key, or an attribute."""
    for attribute in ("idx", "key", "name"):
        if hasattr(key, attribute):
            return re.sub(r"\W", "_", str(getattr(key, attribute))) or "_"
    return re.sub(r"\W", "_", str(key)).strip("_")


def _unique(names: list[str], taken: Iterable[str]) -> list[str]:
    """The names, with a suffix where one is already in use."""
    seen, result = set(taken), []
    for name in names:
        candidate, count = name, 0
        while candidate in seen:
            candidate, count = f"{name}_out" if not count else f"{name}_out{count}", count + 1
        seen.add(candidate)
        result.append(candidate)
    return result
