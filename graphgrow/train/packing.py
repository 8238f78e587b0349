"""State dictionaries as JSON and tensors, and back: what pickle would be used for elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.errors import TrainingError


def pack(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Take the tensors out of nested dictionaries, lists and tuples.

    Returns:
        What is left, of plain JSON types, and the tensors, contiguous and on the CPU, by the names that stand for them.

    Raises:
        TrainingError: if a value is of another type; names its place.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(state, "state", tensors), tensors


def unpack(packed: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Put everything back together.

    Raises:
        TrainingError: if it is not what `pack` gave.
    """
    if packed is None or isinstance(packed, (bool, int, float, str)):
        return packed
    if not isinstance(packed, dict) or len(packed) != 1:
        raise TrainingError(f"a packed state is damaged: {packed!r:.80}")
    ((kind, items),) = packed.items()
    if kind == "tensor" and isinstance(items, str) and items in tensors:
        return tensors[items]
    if kind in ("list", "tuple") and isinstance(items, list):
        found = [unpack(item, tensors) for item in items]
        return tuple(found) if kind == "tuple" else found
    if kind == "dict" and isinstance(items, list) and all(isinstance(i, list) and len(i) == 2 for i in items):
        return {unpack(key, tensors): unpack(value, tensors) for key, value in items}
    raise TrainingError(f"a packed state is damaged: {packed!r:.80}")


def _pack(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        tensors[where] = value.detach().cpu().contiguous().clone()
        return {"tensor": where}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{where}.{number}", tensors) for number, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(key is None or isinstance(key, (bool, int, float, str)) for key in value):
        return {"dict": [[key, _pack(item, f"{where}.{key}", tensors)] for key, item in value.items()]}
    raise TrainingError(f"{where} is of type {type(value).__name__}, which a checkpoint without pickle cannot hold")
