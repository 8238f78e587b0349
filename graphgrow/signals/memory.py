"""What signals have seen so far, as plain values and tensors, so that a training can stop between two batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from graphgrow.errors import SignalError
from graphgrow.signals.histogram import UnitHistograms

_PLAIN = (bool, int, float, str, torch.Tensor)
_MADE = {"UnitHistograms": UnitHistograms}  # objects that a signal makes when it sees the first batch


def memory_of(thing: Any) -> Any:
    """All that a signal, or a part of one, holds of what it has seen: nested dictionaries of plain values and tensors.

    What it was made with (the network's nodes, layers, frozen values) is left out.
    """
    if thing is None or isinstance(thing, _PLAIN):
        return thing
    if isinstance(thing, torch.Generator):
        return {"generator": thing.get_state()}
    if isinstance(thing, (list, tuple)):
        return {"items": [memory_of(item) for item in thing]}
    if isinstance(thing, Mapping):
        return {"entries": {str(key): memory_of(item) for key, item in thing.items()}}
    if _remembers(thing):
        return {"class": type(thing).__name__, "fields": {name: memory_of(item) for name, item in vars(thing).items()}}
    return {"fixed": True}


def remember(thing: Any, memory: Any) -> Any:
    """What takes the place of a freshly made signal, or a part of one, so that it has seen what the memory says.

    Signals are changed in place.

    Raises:
        SignalError: if the memory is of another signal.
    """
    if memory is None or isinstance(memory, _PLAIN):
        return memory
    if "fixed" in memory:
        return thing
    if "generator" in memory:
        thing.set_state(memory["generator"])
        return thing
    if "items" in memory:
        _require(isinstance(thing, (list, tuple)) and len(thing) == len(memory["items"]), memory)
        return type(thing)(remember(own, item) for own, item in zip(thing, memory["items"], strict=True))
    if "entries" in memory:
        _require(isinstance(thing, Mapping) and list(map(str, thing)) == list(memory["entries"]), memory)
        entries = zip(thing.items(), memory["entries"].values(), strict=True)
        return {key: remember(own, item) for (key, own), item in entries}
    if thing is None and memory["class"] in _MADE:
        made = _MADE[memory["class"]]
        thing = made.__new__(made)
        vars(thing).update(dict.fromkeys(memory["fields"]))
    _require(type(thing).__name__ == memory["class"] and set(vars(thing)) == set(memory["fields"]), memory)
    for name, item in memory["fields"].items():
        vars(thing)[name] = remember(vars(thing)[name], item)
    return thing


def _remembers(thing: Any) -> bool:
    """Whether it is an object of the signals' own that changes."""
    frozen = dataclasses.is_dataclass(thing) and getattr(type(thing), "__dataclass_params__").frozen  # noqa: B009
    return type(thing).__module__.startswith("graphgrow.signals.") and not frozen


def _require(fits: bool, memory: Any) -> None:
    if not fits:
        raise SignalError(f"a memory of other signals: {str(sorted(memory))[:60]}; make them from the same graph")
