"""Recording a forward with Dynamo: one graph of torch's functions, and what each of its inputs and outputs is.

Nothing is computed: the graph that Dynamo hands over is answered with tensors without data, from which Dynamo builds
the model's own output, so that each of its parts is known by identity.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental import _config as symbolic
from torch.utils import _pytree as pytree

from graphgrow.capture.dynamo.interruption import ended_by, users_line
from graphgrow.capture.dynamo.leaf_calls import closed_layers
from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.outputs import map_output
from graphgrow.errors import CaptureError

_MAPS = 4  # axes of an image
_COMPILED_ALONE = (
    "use_associative_scan",
)  # ways that models of transformers go where they are compiled, and only there
Keys = tuple[Any, ...]  # where a tensor stands among the inputs: the name of the forward's parameter, then keys


@dataclass(frozen=True)
class InputTensor:
    """An input of the user's."""

    keys: Keys


@dataclass(frozen=True)
class Size:
    """The size of one axis of an input."""

    keys: Keys
    axis: int


Origin = InputTensor | Size | torch.Tensor  # a tensor: one that the model holds


@dataclass(frozen=True)
class Condition:
    """What the forward decided by sizes.

    Attributes:
        holds: a sympy expression over symbols, which holds for the example.
        line: where that was decided.
    """

    holds: Any
    line: str


@dataclass(frozen=True)
class DtypeCheck:
    """For which dtypes a graph holds.

    Attributes:
        origins: the tensors whose dtypes those are.
        admitted: their dtypes, together; those of the example first.
        line: where the model decides by others.
    """

    origins: tuple[torch.Tensor | InputTensor, ...]
    admitted: tuple[tuple[torch.dtype, ...], ...]
    line: str


def dtype_of(source: int) -> torch.dtype:
    """Stands in a record for the dtype of one of the tensors of its `DtypeCheck`; it is read in the graph alone."""
    raise NotImplementedError(f"the dtype of tensor {source} is known in the graph")


@dataclass(frozen=True)
class Recording:
    """What Dynamo recorded in one mode.

    Attributes:
        module: Dynamo's graph, flat inputs to flat outputs.
        origins: what each placeholder is.
        answer: the model's output, with nodes of the graph (or `InputTensor`s, or the model's tensors) for tensors.
        axes: by keys of each input tensor, for each axis a symbol's name, or None where the graph holds for the
            example's size alone; equal symbols are equal sizes. None for a tensor that the graph does not read.
        conditions: what was decided by sizes, each once.
        symbols: by name, one axis with that symbol.
        dtypes: for which dtypes the graph holds; None where nobody has asked.
    """

    module: fx.GraphModule
    origins: Mapping[fx.Node, Origin]
    answer: Any
    axes: Mapping[Keys, tuple[str | None, ...] | None]
    conditions: tuple[Condition, ...]
    symbols: Mapping[str, Size]
    dtypes: DtypeCheck | None = None


def record(
    model: nn.Module, inputs: Mapping[str, Any], leaves: Sequence[type[nn.Module] | str], clock: Clock
) -> Recording:
    """Record the forward of a model in its present mode.

    Args:
        model: left as it is.
        inputs: by name of the forward's parameter (or of a keyword that it takes besides), its example.
        leaves: module classes or paths that stay one node.
        clock: ends it where the time is over.

    Raises:
        TimeBudgetError: if it is.
        CaptureError: if Dynamo finds no single graph; with file and line of the model's code and the cause.
    """
    shown, places = _shown(inputs)
    heard = _Backend()
    call = _fresh_call(model)
    try:
        with _undisturbed(model), closed_layers(model, leaves), _settings(), ended_by(clock):
            compiled: Any = torch.compile(call, backend=heard, fullgraph=True)
            answer = compiled(**shown)
    except CaptureError:
        raise
    except Exception as error:  # Dynamo documents no types; told with its place
        raise CaptureError(_told(error)) from error
    if heard.module is None:
        raise CaptureError("its forward calls no operator of torch")
    return _understood(heard, heard.module, places, answer)


class _Backend:
    """Keeps the graph that Dynamo hands over, and what it is called with."""

    def __init__(self) -> None:
        self.module: fx.GraphModule | None = None
        self.called: tuple[Any, ...] = ()
        self.returned: tuple[Any, ...] = ()

    def __call__(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> Any:
        self.module = module

        def run(*args: Any) -> tuple[Any, ...]:
            self.called = args
            self.returned = tuple(_without_data(node) for node in _results(module))
            return self.returned

        return run


def _results(module: fx.GraphModule) -> tuple[Any, ...]:
    output = next(node for node in module.graph.nodes if node.op == "output")
    return tuple(output.args[0])


def _without_data(result: Any) -> Any:
    """A tensor of a result's shape that holds nothing."""
    example = result.meta["example_value"] if isinstance(result, fx.Node) else result
    if isinstance(example, torch.Tensor):
        return torch.empty([_hint(size) for size in example.shape], dtype=example.dtype, device="meta")
    return _hint(example)  # a number, which is compared at other sizes later


def _hint(size: Any) -> int:
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _shown(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[int, Keys]]:
    """Copies of the inputs, whose sizes are free, and where each tensor stands, by identity.

    torch takes a size of 1 for a constant: a batch of one is shown twice. Of images and videos the batch alone is free:
    strides and windows make so long expressions of their height and width that a capture takes minutes.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(dict(inputs)) if isinstance(leaf, torch.Tensor)]
    single = bool(tensors) and tensors[0].dim() > 0 and tensors[0].shape[0] == 1
    places: dict[int, Keys] = {}

    def copy(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        repeat = single and leaf.dim() > 0 and leaf.shape[0] == 1
        twin = leaf.detach().repeat(2, *[1] * (leaf.dim() - 1)) if repeat else leaf.detach().clone()
        for axis in range(1 if twin.dim() >= _MAPS else twin.dim()):
            torch._dynamo.maybe_mark_dynamic(twin, axis)
        places[id(twin)] = tuple(key_of(step) for step in path)
        return twin

    return pytree.tree_map_with_path(copy, dict(inputs)), places


def key_of(step: Any) -> Any:
    """The key of one step of a path through nested inputs."""
    return getattr(step, "key", getattr(step, "idx", getattr(step, "name", None)))


def _fresh_call(model: nn.Module) -> Any:
    """A function that calls the model, with code of its own: what Dynamo remembers of it ends with it."""

    def call(**inputs: Any) -> Any:
        return model(**inputs)

    return types.FunctionType(call.__code__.replace(), call.__globals__, "call", None, call.__closure__)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """The model as it runs uncompiled; what the recorded forward leaves in its attributes is put back."""
    stores = ("_parameters", "_buffers", "_modules")
    before = [
        (part, dict(part.__dict__), {name: dict(part.__dict__[name]) for name in stores}) for part in model.modules()
    ]
    try:
        for part in model.modules():
            part.__dict__.update(dict.fromkeys(part.__dict__.keys() & set(_COMPILED_ALONE), False))
        yield
    finally:
        for part, attributes, contents in before:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for name, content in contents.items():
                part.__dict__[name].clear()
                part.__dict__[name].update(content)


@contextmanager
def _settings() -> Iterator[None]:
    """Each axis a symbol of its own, however equal the sizes; recurrent layers admitted; nothing logged."""
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    with contextlib.ExitStack() as stack:
        stack.enter_context(symbolic.patch(use_duck_shape=False))  # type: ignore[attr-defined]  # made by torch at run time
        stack.enter_context(
            torch._dynamo.config.patch(
                allow_rnn=True,
                assume_static_by_default=True,
                automatic_dynamic_shapes=False,  # numbers that another model had otherwise stay numbers
                specialize_float=True,
            )
        )
        logger.setLevel(logging.CRITICAL)
        stack.callback(logger.setLevel, level)
        yield


# -- what was recorded -----------------------------------------------------------------------------------------


def _understood(heard: _Backend, module: fx.GraphModule, places: Mapping[int, Keys], answer: Any) -> Recording:
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    origins: dict[fx.Node, Origin] = {}
    for node, value in zip(placeholders, heard.called, strict=True):
        if isinstance(value, torch.Tensor):
            origins[node] = InputTensor(places[id(value)]) if id(value) in places else value
    shapes = _Shapes(origins)
    for node in placeholders:
        if node not in origins:
            origins[node] = shapes.size(node)
    results = {id(mine): node for mine, node in zip(heard.returned, _results(module), strict=True)}

    def known(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and id(leaf) in places:
            return InputTensor(places[id(leaf)])
        return results.get(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

    axes = shapes.axes(places.values())
    return Recording(module, origins, map_output(answer, known), axes, shapes.conditions(), shapes.symbols)


class _Shapes:
    """The symbols in the shapes of the input tensors."""

    def __init__(self, origins: Mapping[fx.Node, Origin]) -> None:
        self._examples = {
            origin.keys: node.meta["example_value"]
            for node, origin in origins.items()
            if isinstance(origin, InputTensor)
        }
        self.symbols: dict[str, Size] = {}
        self._environment: Any = None
        for keys, example in self._examples.items():
            for axis, size in enumerate(example.shape):
                if isinstance(size, torch.SymInt):
                    self._environment = size.node.shape_env
                    for expression in (size.node.expr, size.node._expr):  # before equal sizes became one symbol
                        self.symbols.setdefault(str(expression), Size(keys, axis))

    def size(self, node: fx.Node) -> Size:
        """The axis that a placeholder for a size speaks of.

        Raises:
            CaptureError: if no input tensor of the graph has it.
        """
        example = node.meta["example_value"]
        name = str(example.node.expr) if isinstance(example, torch.SymInt) else str(example)
        if name not in self.symbols:
            raise CaptureError(
                f"it computes with `{node.name}`, a number that is no size of a tensor that it reads; pass that as a "
                "plain example input, or fix it"
            )
        return self.symbols[name]

    def axes(self, places: Iterable[Keys]) -> dict[Keys, tuple[str | None, ...] | None]:
        """For each axis of each input tensor its symbol, None where it is a number; None for those not read."""
        found: dict[Keys, tuple[str | None, ...] | None] = {}
        for keys in places:
            read = keys in self._examples
            found[keys] = tuple(map(self._name, self._examples[keys].shape)) if read else None
        return found

    def _name(self, size: Any) -> str | None:
        if not isinstance(size, torch.SymInt):
            return None
        simple = self._environment.simplify(size.node.expr)
        return str(simple) if simple.free_symbols else None

    def conditions(self) -> tuple[Condition, ...]:
        """What Python decided by sizes; what operators wanted of them they want again in each call of the graph."""
        guards = self._environment.guards if self._environment is not None else ()
        found = (Condition(guard.expr, _line(guard.sloc)) for guard in guards if not _of_an_operator(guard.sloc))
        return tuple({str(condition.holds): condition for condition in found}.values())


_OPERATORS = ("_subclasses", "_refs", "_prims", "_prims_common", "_decomp", "_meta_registrations.py", "_library")


def _of_an_operator(location: Any) -> bool:
    """Whether a guard was put up by an operator while Dynamo ran it on fake tensors."""
    frame = location.framework_loc
    if not isinstance(frame, traceback.FrameSummary):
        return False
    place = Path(frame.filename).resolve()
    root = Path(torch.__file__).resolve().parent
    inside = place.relative_to(root).parts[0] if place.is_relative_to(root) else ""
    return inside in _OPERATORS or (inside == "_dynamo" and frame.name == "run_node")


def _line(location: Any) -> str:
    """File and line of the model's code, without the code: torch writes `code  # path/file.py:3 in forward`."""
    text = str(location.maybe_user_loc or location.framework_loc)
    place = text.rpartition("  # ")[2].partition(" in ")[0]
    return place.rpartition("/")[2]


# -- errors ------------------------------------------------------------------------------------------------------


def _told(error: Exception) -> str:
    """Dynamo's error in one line, with the place in the model's own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    explanation = next((line for line in lines if line.startswith("Explanation:")), "")
    text = f"{text} ({explanation.removeprefix('Explanation:').strip()})" if explanation else text
    place = users_line(getattr(error, "real_stack", None) or [])
    return f"{text} (at {place})" if place else text
