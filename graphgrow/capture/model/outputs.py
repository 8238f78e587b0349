"""What a model puts out: tensors in containers and in objects of classes of its own, taken apart and put together."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.errors import CaptureError

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Built:
    """An object of an output: its class, and what it is made with by name."""

    kind: type
    fields: Mapping[str, Any]


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass that are set; None for anything else."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: item for name, item in named.items() if item is not None}


def map_output(output: Any, change: Callable[[Any], Any]) -> Any:
    """A nested output with its leaves exchanged: containers as they are, objects as `Built`.

    Raises:
        CaptureError: if it holds an object that is no container of tensors.
    """
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(map_output(item, change) for item in output))
    if type(output) in (tuple, list):
        return type(output)(map_output(item, change) for item in output)
    if type(output) in (dict, OrderedDict):
        return type(output)((key, map_output(item, change)) for key, item in output.items())
    fields = fields_of(output)
    if fields is not None:
        return Built(type(output), {name: map_output(item, change) for name, item in fields.items()})
    if isinstance(output, (torch.Tensor, *_PLAIN)):
        return change(output)
    raise CaptureError(f"its output holds a {type(output).__name__}, wanted tensors in containers and dataclasses")


def keeps_state(output: Any) -> bool:
    """Whether an output holds an object that is neither a tensor, nor plain, nor a container of such."""
    return any(not isinstance(leaf, (torch.Tensor, *_PLAIN)) for leaf in leaves_of(output))


def refuse_objects(name: str, output: Any) -> None:
    """See that a model puts out its tensors in what a graph can make.

    Args:
        name: of the model's class.
        output: what it returns.

    Raises:
        CaptureError: if tensors are attributes of an object of another class.
    """
    for leaf in leaves_of(output):
        found = "" if isinstance(leaf, (torch.Tensor, *_PLAIN)) else _tensor_within(leaf)
        if found:
            raise CaptureError(
                f"{name} returns a {type(leaf).__name__}, wanted tensors in containers and dataclasses; wrap it in a "
                f"module that returns its tensors (`{found}`)"
            )


def _tensor_within(value: Any, depth: int = 2) -> str:
    """The path of attributes to a tensor that an object, or one that it holds, has; empty if there is none."""
    for name, item in getattr(value, "__dict__", {}).items():
        inner = "" if isinstance(item, torch.Tensor) or not depth else _tensor_within(item, depth - 1)
        if isinstance(item, torch.Tensor) or inner:
            return f".{name}{inner}"
    return ""


def leaves_of(output: Any) -> list[Any]:
    """The leaves of a nested output, those within dataclasses and dictionaries of any class included."""
    fields = fields_of(output)
    if fields is not None or isinstance(output, dict):
        return [leaf for item in (fields if fields is not None else output).values() for leaf in leaves_of(item)]
    if isinstance(output, (tuple, list)):
        return [leaf for item in output for leaf in leaves_of(item)]
    return [output]


def register_classes(output: Any) -> None:
    """Make torch's tree functions look into the dataclasses of an output, as the comparison of outputs does."""
    fields = fields_of(output)
    if fields is not None and type(output) not in pytree.SUPPORTED_NODES:
        pytree.register_dataclass(type(output))
    inner = fields if fields is not None else output
    items = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, (tuple, list)) else ()
    for item in items:
        register_classes(item)
