"""The dtypes that stand as constants in Dynamo's record of a forward, and follow in the graph when that is cast.

Dynamo keeps no `x.dtype`: a cast to it stands in the record as a cast to torch.float32. So the model is recorded as if
it were cast, too, to each of the floating dtypes, and the records are compared node by node. A constant that is in each
of them the dtype of the model's tensors, or a limit of that dtype, is read off such a tensor in the graph; for dtypes
that make another record, the graph refuses to be called.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.dynamo.leaf_calls import layer_call
from graphgrow.capture.dynamo.recording import DtypeCheck, InputTensor, Recording, dtype_of, key_of, record
from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.running import in_mode
from graphgrow.errors import CaptureError, TimeBudgetError
from graphgrow.ir.editor import follow_flat_weights
from graphgrow.ir.meta import MetaRunner, stand_beside, to_meta

Dtypes = tuple[torch.dtype, ...]

_TRIED = (torch.float64, torch.bfloat16, torch.float16, torch.float32)
_LIMITS = ("min", "max", "eps", "tiny", "resolution")  # what torch.finfo tells
_LINE = re.compile(r'File "(.*?)", line (\d+)')


def recast(
    model: nn.Module,
    recordings: Mapping[str, Recording],
    inputs: Mapping[str, Any],
    leaves: Sequence[type[nn.Module] | str],
    clock: Clock,
) -> dict[str, Recording]:
    """Let the records of a model read the dtypes that follow when it is cast, and check those for which they hold.

    Args:
        model: that was recorded; left as it is.
        recordings: by mode; their graphs are changed.
        inputs: by name of the forward's parameter, its example.
        leaves: as for `record`.
        clock: times the steps.
    """
    origins, present, follow = _sources(model, inputs, _read(model, recordings.values()))
    if not origins:
        return dict(recordings)
    alike = {mode: _Alike(recording.module, present) for mode, recording in recordings.items()}
    admitted, line = [present], ""
    with clock.step("recording with Dynamo in other dtypes"):
        for dtype in _TRIED:
            casting = tuple(dtype if own in follow else own for own in present)
            if casting in admitted:
                continue
            joint = dict[str, _Alike]()
            given = _with_dtypes(inputs, dict(zip(present, casting, strict=True)))
            try:
                for mode in recordings:
                    with in_mode(model, mode == "train"), _as_cast(model, dtype):
                        joint[mode] = alike[mode].joined(_recorded(model, given, leaves, clock), casting)
            except _Differs as differs:
                line = line or differs.line
            except TimeBudgetError:
                raise
            except CaptureError:  # as it is cast the model does not run: neither shall the graph
                pass
            else:
                alike, admitted = joint, [*admitted, casting]
    check = DtypeCheck(origins, tuple(admitted), line or f"the forward of {type(model).__name__}")
    for each in alike.values():
        each.write()
    return {mode: replace(recording, dtypes=check) for mode, recording in recordings.items()}


def dtypes_of_values(
    module: fx.GraphModule, inputs: Mapping[str, Any], admitted: Sequence[Dtypes]
) -> list[dict[fx.Node, torch.dtype]]:
    """By node of a captured graph, the dtype of its value: on the example, and in every dtype that the graph admits.

    Args:
        module: whose nodes have example values.
        inputs: the examples by name.
        admitted: as in `DtypeCheck`; the first are those of the example.
    """
    examples = ((node, node.meta.get("value")) for node in module.graph.nodes)
    found = [{node: value.dtype for node, value in examples if isinstance(value, torch.Tensor)}]
    for casting in admitted[1:]:
        to = dict(zip(admitted[0], casting, strict=True))
        given = _with_dtypes(inputs, to)
        values: dict[fx.Node, Any] = {}
        with _as_cast(module, next(new for old, new in to.items() if new != old)):
            runner = MetaRunner(module)
            for node in module.graph.nodes:
                if node.op == "placeholder":
                    values[node] = to_meta(given[str(node.target)])
                elif node.op != "output":
                    arguments = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
                    values[node] = runner.run(node.op, node.target, *arguments)
        found.append({node: value.dtype for node, value in values.items() if isinstance(value, torch.Tensor)})
    return found


def _recorded(
    model: nn.Module, inputs: Mapping[str, Any], leaves: Sequence[type[nn.Module] | str], clock: Clock
) -> fx.GraphModule:
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):  # of ways that the model does not go in the dtype that it has
        warnings.simplefilter("ignore")
        return record(model, inputs, leaves, clock).module


# -- casting -------------------------------------------------------------------------------------------------------


def _read(model: nn.Module, recordings: Iterable[Recording]) -> set[int]:
    """The identities of the model's tensors that a record reads, those of the layers that it calls among them."""
    read: set[int] = set()
    for recording in recordings:
        read |= {id(origin) for node, origin in recording.origins.items() if node.users}
        for node in recording.module.graph.find_nodes(op="call_function", target=layer_call):
            layer = model.get_submodule(str(node.args[0]))
            read |= {id(tensor) for tensor in (*layer.parameters(), *layer.buffers())}
    return read


def _sources(
    model: nn.Module, inputs: Mapping[str, Any], read: Collection[int]
) -> tuple[tuple[torch.Tensor | InputTensor, ...], Dtypes, set[torch.dtype]]:
    """Tensors off which dtypes are read, those dtypes, and which of these follow when the model is cast.

    One tensor of the model's for each dtype, one that is read (by identity) where there is one, parameters first, and
    every input: an input is cast with the model where it has the dtype of a tensor of the model's; where the model has
    none, all inputs are.
    """
    held: dict[torch.dtype, torch.Tensor] = {}
    for tensor in sorted((*model.parameters(), *model.buffers()), key=lambda tensor: id(tensor) not in read):
        if tensor.is_floating_point():
            held.setdefault(tensor.dtype, tensor)
    given = {
        InputTensor(tuple(map(key_of, path))): leaf.dtype
        for path, leaf in pytree.tree_leaves_with_path(dict(inputs))
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    }
    return (*held.values(), *given), (*held, *given.values()), set(held or given.values())


def _with_dtypes(inputs: Mapping[str, Any], to: Mapping[torch.dtype, torch.dtype]) -> dict[str, Any]:
    """The examples, each of the dtype that its own becomes."""

    def cast(leaf: Any) -> Any:
        return leaf.to(to.get(leaf.dtype, leaf.dtype)) if isinstance(leaf, torch.Tensor) else leaf

    found: dict[str, Any] = pytree.tree_map(cast, dict(inputs))
    return found


@contextmanager
def _as_cast(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The model over tensors of the dtype that `.to(dtype)` gives them, which hold nothing; what is tied stays so."""
    twins: dict[int, torch.Tensor] = {}
    before = [(part, dict(part._parameters), dict(part._buffers)) for part in model.modules()]
    try:
        for part in model.modules():
            stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for store in stores:
                store.update([(name, _twin(tensor, dtype, twins)) for name, tensor in store.items()])
            follow_flat_weights(part)
        yield
    finally:
        for part, parameters, buffers in before:
            part._parameters.update(parameters)
            part._buffers.update(buffers)
            follow_flat_weights(part)


def _twin(tensor: torch.Tensor | None, dtype: torch.dtype, twins: dict[int, torch.Tensor]) -> torch.Tensor | None:
    if tensor is None or not tensor.is_floating_point():
        return tensor
    if id(tensor) not in twins:
        new = torch.empty_like(tensor, dtype=dtype)
        learns = isinstance(tensor, nn.Parameter)
        twins[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if learns else new
    return twins[id(tensor)]


# -- comparing -----------------------------------------------------------------------------------------------------


class _Differs(Exception):
    """Two records are not the same, dtypes and their limits aside.

    Attributes:
        line: file and line of the model's code, empty where that is not known.
    """

    def __init__(self, node: fx.Node) -> None:
        super().__init__(node.name)
        lines = _LINE.findall(node.stack_trace or "")
        self.line = f"{Path(lines[-1][0]).name}:{lines[-1][1]}" if lines else ""


@dataclass(frozen=True)
class _Place:
    """A literal among the arguments of a node."""

    node: fx.Node
    leaf: int


@dataclass(frozen=True)
class _Formula:
    """How a literal follows the dtype of a tensor."""

    source: int
    of: Callable[[torch.dtype], Any]
    write: Callable[[fx.Graph, fx.Node], fx.Node]


class _Alike:
    """A record, and those that were found to be alike but for dtypes and their limits.

    Args:
        module: Dynamo's graph.
        present: the dtypes of the sources in it.
        casts: those in each of the others.
        values: by place of a literal that is not the same in all of them, its value in each.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        present: Dtypes,
        casts: tuple[Dtypes, ...] = (),
        values: Mapping[_Place, tuple[Any, ...]] | None = None,
    ) -> None:
        self._module, self._present, self._casts, self._values = module, present, casts, dict(values or {})

    def joined(self, other: fx.GraphModule, casting: Dtypes) -> _Alike:
        """With one more record.

        Raises:
            _Differs: if it is another, or no formula gives a literal in all of them.
        """
        here = {place: (mine, theirs) for place, mine, theirs in _literals(self._module, other)}
        values: dict[_Place, tuple[Any, ...]] = {}
        for place, (mine, theirs) in here.items():
            known = self._values.get(place, (mine,) * len(self._casts))
            if repr(theirs) != repr(mine) or place in self._values:
                values[place] = (*known, theirs)
        joint = _Alike(self._module, self._present, (*self._casts, casting), values)
        for place, found in values.items():
            if joint._formula(here[place][0], found) is None:
                raise _Differs(place.node)
        return joint

    def write(self) -> None:
        """Let the record compute the literals that are not the same everywhere."""
        originals = {place: _leaves(place.node)[place.leaf] for place in self._values}
        for place, found in self._values.items():
            formula = self._formula(originals[place], found)
            assert formula is not None  # `joined` has seen it
            graph = place.node.graph
            with graph.inserting_before(place.node):
                read = graph.call_function(dtype_of, (formula.source,))
                stand_beside(read, place.node)
                new = formula.write(graph, read)
            stand_beside(new, place.node)
            _put(place, new)

    def _formula(self, mine: Any, others: tuple[Any, ...]) -> _Formula | None:
        for formula in _formulas(self._present, mine):
            wanted = [formula.of(casting[formula.source]) for casting in self._casts]
            if repr(formula.of(self._present[formula.source])) == repr(mine) and repr(wanted) == repr(list(others)):
                return formula
        return None


def _formulas(present: Dtypes, literal: Any) -> Iterator[_Formula]:
    for source in range(len(present)):
        if isinstance(literal, torch.dtype):
            yield _Formula(source, lambda dtype: dtype, lambda graph, read: read)
            yield _Formula(source, _wide, lambda graph, read: graph.call_function(torch.promote_types, (read, _FLOAT)))
        if isinstance(literal, float):
            for limit in _LIMITS:
                yield _Formula(source, partial(_limit, limit), partial(_write_limit, limit))


_FLOAT = torch.float32


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, _FLOAT)


def _limit(name: str, dtype: torch.dtype) -> Any:
    return getattr(torch.finfo(dtype), name)


def _write_limit(name: str, graph: fx.Graph, read: fx.Node) -> fx.Node:
    return graph.call_function(getattr, (graph.call_function(torch.finfo, (read,)), name))


def _literals(mine: fx.GraphModule, other: fx.GraphModule) -> Iterator[tuple[_Place, Any, Any]]:
    """The dtypes and floats among the arguments of two records, side by side.

    Raises:
        _Differs: if anything else is not the same.
    """
    numbers: dict[fx.Node, int] = {}
    pairs = zip(mine.graph.nodes, other.graph.nodes, strict=False)  # the shorter one's output meets something else
    for number, (a, b) in enumerate(pairs):
        numbers[a] = numbers[b] = number
        same = (a.op, a.target) == (b.op, b.target) and _form(a) == _form(b)
        if not same:
            raise _Differs(b if b.op != "output" else a)
        if a.op == "get_attr":
            yield from _held(a, getattr(mine, str(a.target)), getattr(other, str(b.target)))
        for leaf, (x, y) in enumerate(zip(_leaves(a), _leaves(b), strict=True)):
            if isinstance(x, fx.Node):
                if not isinstance(y, fx.Node) or numbers[x] != numbers[y]:
                    raise _Differs(b)
            elif type(x) is type(y) and isinstance(x, (torch.dtype, float)):
                yield _Place(a, leaf), x, y
            elif repr(x) != repr(y):
                raise _Differs(b)


def _held(node: fx.Node, mine: Any, other: Any) -> Iterator[tuple[_Place, Any, Any]]:
    """What two records hold under one name: pieces of code, or tensors."""
    if isinstance(mine, fx.GraphModule) and isinstance(other, fx.GraphModule):
        yield from _literals(mine, other)
        return
    tensors = isinstance(mine, torch.Tensor) and isinstance(other, torch.Tensor)
    if not tensors or (mine.dtype, mine.shape) != (other.dtype, other.shape):
        raise _Differs(node)
    if not mine.is_meta and not torch.equal(mine, other):
        raise _Differs(node)


def _form(node: fx.Node) -> str:
    return repr(fx.node.map_aggregate((node.args, dict(node.kwargs)), lambda _: None))


def _leaves(node: fx.Node) -> list[Any]:
    found: list[Any] = []
    fx.node.map_aggregate((node.args, dict(node.kwargs)), found.append)
    return found


def _put(place: _Place, new: fx.Node) -> None:
    """Let an argument of a node be another node."""
    number = -1

    def exchanged(leaf: Any) -> Any:
        nonlocal number
        number += 1
        return new if number == place.leaf else leaf

    place.node.args, place.node.kwargs = fx.node.map_aggregate((place.node.args, dict(place.node.kwargs)), exchanged)
