"""Random numbers of a grown network: at the old units those of its parent, at new ones others of the same kind.

No generator draws the numbers of a smaller tensor at the old places of a larger one, so that networks of one
distribution would be compared with other numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.capture.stand_ins.factories import RANDOM
from graphgrow.ir.inputs import bind
from graphgrow.ir.positions import Kept, Recurring, positions_along

Draw = Callable[[Any, Any], Any]  # from positional arguments, and those by name
_SIZED = {"rand": 0, "randn": 0, "normal": 2}  # by name, how many arguments stand in front of the sizes


def begin_random(seed: int) -> None:
    """Seed the random numbers of the CPU, and of other devices that are in use.

    `torch.manual_seed` walks through all kinds of devices, which takes as long as running several small layers.
    """
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def is_random(node: fx.Node) -> bool:
    """Whether a node draws random numbers, as torch.rand does."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in RANDOM


@contextmanager
def settled(node: fx.Node) -> Iterator[None]:
    """Random numbers that are the same wherever a node of that name draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(node.name.encode()))
        yield


def draw(node: fx.Node, call: Draw, args: Any, kwargs: Any, places: Mapping[int, Kept] | None) -> Any:
    """The random numbers of a node: the same wherever a node of that name draws them.

    Args:
        node: which draws.
        call: carries the node out.
        args: its positional arguments.
        kwargs: those by name.
        places: for each axis that grew, where the units of the parent are; None for a network that is no child.
    """
    with settled(node):
        numbers = call(args, kwargs)
    if not places or not isinstance(numbers, torch.Tensor):
        return numbers
    with settled(node):
        if _is_sized(node, args, kwargs):
            shape = tuple(_old_size(places.get(axis), size) for axis, size in enumerate(numbers.shape))
            old = call(*_resized(node, args, kwargs, shape))
        else:
            cut = lambda leaf: _cut(leaf, numbers, places)  # noqa: E731
            old = call(pytree.tree_map(cut, args), pytree.tree_map(cut, kwargs))
    return _put(numbers.clone(), old, places)


def _is_sized(node: fx.Node, args: Any, kwargs: Any) -> bool:
    tensors = any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves((args, kwargs)))
    return getattr(node.target, "__name__", "") in _SIZED and not tensors


def _old_size(kept: Kept | None, size: int) -> int:
    if kept is None:
        return size
    return size // kept.period * len(kept.kept) if isinstance(kept, Recurring) else len(kept)


def _resized(node: fx.Node, args: Any, kwargs: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Arguments of the same operator with other sizes."""
    if "size" in kwargs:
        return args, {**kwargs, "size": shape}
    return (*args[: _SIZED[getattr(node.target, "__name__", "")]], shape), kwargs


def _cut(leaf: Any, numbers: torch.Tensor, places: Mapping[int, Kept]) -> Any:
    """An operand with the parent's units alone, along the axes that it has in common with what is drawn."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    offset = numbers.dim() - leaf.dim()
    for axis, kept in places.items():
        own = axis - offset
        if own >= 0 and leaf.shape[own] > 1:
            leaf = leaf.index_select(own, positions_along(kept, leaf.shape[own]).clamp(min=0))
    return leaf.clone()


def _put(numbers: torch.Tensor, old: torch.Tensor, places: Mapping[int, Kept]) -> torch.Tensor:
    """Lay the parent's numbers at their places."""
    index: list[torch.Tensor] = []
    for axis, size in enumerate(numbers.shape):
        kept = places.get(axis)
        here = torch.arange(size) if kept is None else positions_along(kept, size)
        old = old.index_select(axis, torch.nonzero(here >= 0).flatten())  # some are gone
        index.append(here[here >= 0].reshape(-1, *[1] * (numbers.dim() - 1 - axis)))
    numbers[tuple(index)] = old
    return numbers


class Drawing(fx.Interpreter):
    """Runs a graph as it is, but for its random numbers, which are those of `draw`.

    Args:
        module: the graph module.
        places: of a child, where the parent's units are, by node.
    """

    def __init__(self, module: fx.GraphModule, places: Mapping[str, Mapping[int, Kept]]) -> None:
        super().__init__(module, graph=module.graph)
        self._places = places
        self._inputs: Mapping[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the graph computes of its inputs."""
        names = [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]
        self._inputs = bind(names, args, kwargs)
        return self.run()

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """An input, or its default."""
        return self._inputs.get(str(target), args[0] if args else None)

    def run_node(self, n: fx.Node) -> Any:
        """Carry out a node."""
        if not is_random(n):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        run = getattr(self, n.op)
        return draw(n, lambda a, k: run(n.target, tuple(a), dict(k)), args, kwargs, self._places.get(n.name))
