"""For which sizes of its inputs a recorded graph holds: only for those that were compared with the model."""

from __future__ import annotations

import contextlib
import functools
import io
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

from graphgrow.capture.dynamo.recording import Condition, Keys, Recording, Size
from graphgrow.capture.model.agreement import disagreement
from graphgrow.capture.model.running import run_in_eval, run_in_train
from graphgrow.layers import require_decision, require_sizes

_OPERATORS = {
    sympy.Add: operator.add, sympy.Mul: operator.mul, Mod: operator.mod, PythonMod: operator.mod,
    FloorDiv: operator.floordiv, sympy.Eq: operator.eq, sympy.Ne: operator.ne, sympy.Lt: operator.lt,
    sympy.Le: operator.le, sympy.Gt: operator.gt, sympy.Ge: operator.ge,
}  # fmt: skip
_TRIED = 9  # how far from the example's a size is looked for by which the model decides alike
Place = tuple[Keys, int]  # an axis of an input


@dataclass(frozen=True)
class _Trial:
    """A model and its graph, to be compared at other sizes than the example's."""

    model: nn.Module
    module: fx.GraphModule
    inputs: Mapping[str, Any]
    training: bool

    def differs(self, sizes: Mapping[Place, int]) -> str | None:
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
    free = _free(trial, groups, recording)
    for condition in recording.conditions:
        if not _can_be_asked(condition, recording.symbols):
            spoken = _places(condition, recording.symbols)
            free.difference_update(p for places in groups.values() if not spoken.isdisjoint(places) for p in places)
    wanted: dict[Keys, tuple[int | None, ...]] = {}
    fixed: list[str] = []
    for keys in recording.axes:
        shape = _at(inputs, keys).shape
        held = tuple(None if (keys, axis) in free else int(size) for axis, size in enumerate(shape))
        if any(size is not None for size in held):
            wanted[keys] = held
            places = ", ".join(str(axis) for axis, size in enumerate(held) if size is not None)
            fixed.append(f"{_name(keys)} (axis {places})")
    front = _Front(module)
    with module.graph.inserting_before(next(node for node in module.graph.nodes if node.op != "placeholder")):
        front.require_sizes(wanted)
        for condition in recording.conditions:
            if _asks_for(condition, recording.symbols, free):
                front.require(condition, recording.symbols)
        for place in _never_single(trial, groups, free):
            front.require_more_than_one(place, f"the forward of {type(model).__name__}")
    module.recompile()
    return [f"sizes that stay those of the example: {'; '.join(fixed)}"] if fixed else []


def _groups(recording: Recording, inputs: Mapping[str, Any]) -> dict[str, list[Place]]:
    """The axes that have one size, by its symbol; an input that the graph does not read goes with one of its sizes."""
    groups: dict[str, list[Place]] = {}
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


def _free(trial: _Trial, groups: Mapping[str, list[Place]], recording: Recording) -> set[Place]:
    """The axes for whose sizes graph and model were seen to agree: all changed at once, else each by itself."""
    present = {symbol: int(_at(trial.inputs, axes[0][0]).shape[axes[0][1]]) for symbol, axes in groups.items()}

    def changed(sizes: Mapping[str, int]) -> dict[Place, int]:
        return {place: size for symbol, size in sizes.items() for place in groups[symbol]}

    def holds(sizes: Mapping[str, int]) -> bool:
        return trial.differs(changed(sizes)) == ""

    def first(symbol: str, sizes: Sequence[int]) -> int:
        """The first of them by which the model decides as it does on the example."""
        met = (size for size in sizes if _meets(recording, trial.inputs, changed({symbol: size})))
        return next(met, sizes[0])

    larger = {symbol: first(symbol, range(n + 1, n + _TRIED)) for symbol, n in present.items()}
    multiples = {symbol: first(symbol, range(2 * n, n * _TRIED, n)) for symbol, n in present.items()}
    for grown in (larger, multiples):
        if groups and holds(grown):
            return {place for axes in groups.values() for place in axes}
    alone = [s for s in present if holds({s: larger[s]}) or holds({s: multiples[s]})]
    while alone and not any(holds({s: sizes[s] for s in alone}) for sizes in (larger, multiples)):
        alone.pop()  # sizes that hold by themselves, but not together
    return {place for symbol in alone for place in groups[symbol]}


def _meets(recording: Recording, inputs: Mapping[str, Any], sizes: Mapping[Place, int]) -> bool:
    """Whether the model decides by these sizes as it does by the example's, as far as it is known by what."""
    for condition in recording.conditions:
        values = {}
        for symbol in condition.holds.free_symbols:
            place = recording.symbols.get(str(symbol))
            if place is not None:
                at = (place.keys, place.axis)
                values[symbol] = sizes.get(at, int(_at(inputs, place.keys).shape[place.axis]))
        if condition.holds.subs(values) == False:  # noqa: E712  # sympy's own truth, or an expression
            return False
    return True


def _can_be_asked(condition: Condition, symbols: Mapping[str, Size]) -> bool:
    """Whether a graph can compute the condition from the sizes of its inputs."""
    atoms = sympy.preorder_traversal(condition.holds)
    return all(str(a) in symbols if a.is_Symbol else a.is_Integer or type(a) in _OPERATORS for a in atoms)


def _asks_for(condition: Condition, symbols: Mapping[str, Size], free: set[Place]) -> bool:
    """Whether a condition speaks of a size that is free."""
    return not free.isdisjoint(_places(condition, symbols))


def _places(condition: Condition, symbols: Mapping[str, Size]) -> set[Place]:
    """The axes whose sizes a condition speaks of."""
    known = (symbols.get(str(symbol)) for symbol in condition.holds.free_symbols)
    return {(place.keys, place.axis) for place in known if place is not None}


def _resized(inputs: Mapping[str, Any], sizes: Mapping[Place, int]) -> dict[str, Any]:
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


def _never_single(trial: _Trial, groups: Mapping[str, list[Place]], free: set[Place]) -> list[Place]:
    """An axis for each free size that may not be 1: torch takes it for granted that none is, and asks nothing then."""
    symbols = [symbol for symbol, places in groups.items() if free.issuperset(places)]

    def differs(*chosen: str) -> bool:
        return bool(trial.differs({place: 1 for symbol in chosen for place in groups[symbol]}))

    return [groups[symbol][0] for symbol in symbols if differs(symbol)] if differs(*symbols) else []


class _Front:
    """Checks at the front of a graph, before it computes anything."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._graph = module.graph
        self._inputs = {str(node.target): node for node in module.graph.nodes if node.op == "placeholder"}

    def require_sizes(self, wanted: Mapping[Keys, tuple[int | None, ...]]) -> None:
        """Let the graph refuse inputs of other sizes; None is any size."""
        for keys, sizes in wanted.items():
            self._graph.call_function(require_sizes, (self._input(keys), sizes, _name(keys)))

    def require(self, condition: Condition, symbols: Mapping[str, Size]) -> None:
        """Let the graph refuse sizes by which the model would decide otherwise."""
        self._graph.call_function(require_decision, (self._computed(condition.holds, symbols), True, condition.line))

    def require_more_than_one(self, place: Place, line: str) -> None:
        """Let the graph refuse a size of 1."""
        several = self._graph.call_function(operator.gt, (self._size(place), 1))
        self._graph.call_function(require_decision, (several, True, line))

    def _computed(self, expression: Any, symbols: Mapping[str, Size]) -> fx.Node | int:
        """An expression over symbols as nodes."""
        if expression.is_Symbol:
            place = symbols[str(expression)]
            return self._size((place.keys, place.axis))
        if expression.is_Integer:
            return int(expression)
        called: Any = _OPERATORS[type(expression)]
        terms = [self._computed(term, symbols) for term in expression.args]
        return functools.reduce(lambda a, b: self._graph.call_function(called, (a, b)), terms)

    def _input(self, keys: Keys) -> fx.Node:
        node: fx.Node = self._inputs[str(keys[0])]
        for key in keys[1:]:
            node = self._graph.call_function(operator.getitem, (node, key))
        return node

    def _size(self, place: Place) -> fx.Node:
        shape = self._graph.call_function(getattr, (self._input(place[0]), "shape"))
        return self._graph.call_function(operator.getitem, (shape, place[1]))


def _at(inputs: Mapping[str, Any], keys: Keys) -> Any:
    value: Any = inputs
    for key in keys:
        value = value[key]
    return value


def _name(keys: Keys) -> str:
    return "".join([str(keys[0]), *(f"[{key!r}]" for key in keys[1:])])
