"""For which sizes of its inputs a recorded graph holds: only for those that were compared with the model."""

from __future__ import annotations

import contextlib
import io
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.agreement import disagreement
from graphgrow.capture.dynamo import Keys, Recording
from graphgrow.capture.running import run_in_eval, run_in_train
from graphgrow.layers import require_sizes


@dataclass(frozen=True)
class _Trial:
    """A model and its graph, to be compared at other sizes than the example's."""

    model: nn.Module
    module: fx.GraphModule
    inputs: Mapping[str, Any]
    training: bool

    def differs(self, sizes: Mapping[tuple[Keys, int], int]) -> str | None:
        """In what graph and model differ at these sizes; empty where they agree, None where the model takes none."""
        resized = _resized(self.inputs, sizes)
        run = run_in_train if self.training else run_in_eval
        try:
            wanted = run(self.model, (), resized)
        except Exception:  # noqa: BLE001  # a size that the model itself does not take says nothing
            return None
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # fx tells every error of a graph there too
                found = run(self.module, (), resized)
            return disagreement(self.model, found, wanted)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            return f"the graph fails there: {error}"


def guard_sizes(
    model: nn.Module, module: fx.GraphModule, recording: Recording, inputs: Mapping[str, Any], *, training: bool
) -> list[str]:
    """Compare graph and model at other sizes, and let the graph refuse those for which they were not seen to agree.

    Args:
        model: that was captured.
        module: its graph, which takes in the checks.
        recording: which axes are free, as far as Dynamo knows.
        inputs: the examples by name.
        training: compare in train mode.

    Returns:
        What a user should know.
    """
    trial = _Trial(model, module, inputs, training)
    groups = _groups(recording, inputs)
    free = _free(trial, groups)
    wanted: dict[Keys, tuple[int | None, ...]] = {}
    fixed: list[str] = []
    for keys in recording.axes:
        shape = _at(inputs, keys).shape
        held = tuple(None if (keys, axis) in free else int(size) for axis, size in enumerate(shape))
        if any(size is not None for size in held):
            wanted[keys] = held
            places = ", ".join(str(axis) for axis, size in enumerate(held) if size is not None)
            fixed.append(f"{_name(keys)} (axis {places})")
    _insert_checks(module, wanted)
    return [f"sizes that stay those of the example: {'; '.join(fixed)}"] if fixed else []


def _groups(recording: Recording, inputs: Mapping[str, Any]) -> dict[str, list[tuple[Keys, int]]]:
    """The axes that have one size, by its symbol; an input that the graph does not read goes with one of its sizes."""
    groups: dict[str, list[tuple[Keys, int]]] = {}
    sizes: dict[int, str] = {}
    for keys, symbols in recording.axes.items():
        for axis, symbol in enumerate(symbols or ()):
            if symbol is not None:
                groups.setdefault(symbol, []).append((keys, axis))
                sizes.setdefault(int(_at(inputs, keys).shape[axis]), symbol)
    for keys, symbols in recording.axes.items():
        if symbols is None:
            for axis, size in enumerate(_at(inputs, keys).shape):
                groups.setdefault(sizes.get(int(size), f"{keys}{axis}"), []).append((keys, axis))
    return groups


def _free(trial: _Trial, groups: Mapping[str, list[tuple[Keys, int]]]) -> set[tuple[Keys, int]]:
    """The axes for whose sizes graph and model were seen to agree: all changed at once, else each by itself."""
    present = {symbol: int(_at(trial.inputs, axes[0][0]).shape[axes[0][1]]) for symbol, axes in groups.items()}

    def holds(sizes: Mapping[str, int]) -> bool:
        changed = {place: size for symbol, size in sizes.items() for place in groups[symbol]}
        return trial.differs(changed) == ""

    for grown in ({s: n + 1 for s, n in present.items()}, {s: 2 * n for s, n in present.items()}):
        if groups and holds(grown):
            return {place for axes in groups.values() for place in axes}
    alone = [s for s, n in present.items() if holds({s: n + 1}) or holds({s: 2 * n})]
    while alone and not any(holds({s: size(present[s]) for s in alone}) for size in (_next, _double)):
        alone.pop()  # sizes that hold by themselves, but not together
    return {place for symbol in alone for place in groups[symbol]}


def _next(size: int) -> int:
    return size + 1


def _double(size: int) -> int:
    return 2 * size


def _resized(inputs: Mapping[str, Any], sizes: Mapping[tuple[Keys, int], int]) -> dict[str, Any]:
    """The examples with axes repeated or cut, so that their values stay of the kind that the model takes."""

    def resize(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        keys = tuple(getattr(step, "key", getattr(step, "idx", None)) for step in path)
        for axis in range(leaf.dim()):
            size = sizes.get((keys, axis), leaf.shape[axis])
            if size != leaf.shape[axis]:
                leaf = leaf.index_select(axis, torch.arange(size, device=leaf.device) % leaf.shape[axis])
        return leaf

    resized: dict[str, Any] = pytree.tree_map_with_path(resize, dict(inputs))
    return resized


def _insert_checks(module: fx.GraphModule, wanted: Mapping[Keys, tuple[int | None, ...]]) -> None:
    """Let the graph refuse inputs of other sizes, before it computes anything."""
    placeholders = {str(node.target): node for node in module.graph.nodes if node.op == "placeholder"}
    graph, last = module.graph, list(placeholders.values())[-1]
    for keys, sizes in wanted.items():
        with graph.inserting_after(last):
            node = placeholders[str(keys[0])]
            for key in keys[1:]:
                node = last = graph.call_function(operator.getitem, (node, key))
        with graph.inserting_after(last):
            last = graph.call_function(require_sizes, (node, sizes, _name(keys)))
    module.recompile()


def _at(inputs: Mapping[str, Any], keys: Keys) -> Any:
    value: Any = inputs
    for key in keys:
        value = value[key]
    return value


def _name(keys: Keys) -> str:
    return "".join([str(keys[0]), *(f"[{key!r}]" for key in keys[1:])])
