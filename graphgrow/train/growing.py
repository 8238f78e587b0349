"""A module that stays the same object while the network in it grows, for trainers that hold on to their model."""

from __future__ import annotations

import copy
import inspect
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, Self

import torch
from torch import fx, nn

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.rewrite.apply import replay

LEDGER = "ledger"  # the entry of a state dictionary that holds the ledger's JSON, as bytes


class Observer(Protocol):
    """What looks on at training batches, as a Grower does."""

    def observe(self) -> AbstractContextManager[None]:
        """Around one batch."""


class Growing(nn.Module):
    """Stands for a network that grows: called like it, and the same object before and after.

    Its state dictionary holds the ledger, so that it can be loaded into one that has grown less, or further: the
    structure follows first, then the tensors. Tied tensors are in it once.

    Args:
        graph: the network at the beginning.

    Attributes:
        graph: the newest.
        grower: while there is one, it observes training batches.
    """

    def __new__(cls, *_: Any) -> Self:
        """A class of its own for each, since frameworks read the arguments of `forward` off the class."""
        made: Self = super().__new__(type(cls.__name__, (cls,), {"__module__": cls.__module__}))
        return made

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._base = graph
        self.grower: Observer | None = None
        self.graph = graph
        self.module = graph.module
        kind: Any = type(self)
        kind.forward = _with_signature(kind.forward, graph.module)
        self._register_state_dict_hook(_write)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network answers."""
        if self.grower is None or not (self.training and torch.is_grad_enabled()):
            return self.module(*args, **kwargs)
        with self.grower.observe():
            return self.module(*args, **kwargs)

    @property
    def base(self) -> Graph:
        """What it began as; its numbers may have been trained since."""
        return self._base

    def become(self, graph: Graph) -> None:
        """Stand for a network that grew from the same base."""
        if graph.ledger.after(self._base.ledger) is None:
            raise TrainingError("the graph did not grow from the one that this module began with")
        if graph.module.training != self.training:
            graph.module.train(self.training)
        self.graph, self.module = graph, graph.module

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Cast or move it as any module; what the graph says of its inputs, on which growth is verified, follows."""
        before = _floating(self.module)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        after = _floating(self.module)
        if before is not None and after is not None and before != after:
            self.graph, self._base = (
                replace(graph, inputs=replace(graph.inputs.with_dtype(after[0]), device=after[1]))
                for graph in (self.graph, self._base)
            )
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Growing:
        """A copy of the network, observed by nobody."""
        copied = Growing(self._base)
        memo[id(self)] = copied
        copied.become(replace(self.graph, module=copy.deepcopy(self.module, memo)))
        return copied.train(self.training)


def growing_in(model: nn.Module) -> Growing:
    """The one growing module in a model.

    Raises:
        TrainingError: if there is none, or more than one.
    """
    found = [module for module in model.modules() if isinstance(module, Growing)]
    if len(found) != 1:
        raise TrainingError(
            f"{len(found)} growing modules in {type(model).__name__}, wanted one: put Growing(graph) where the network "
            "that is to grow stands"
        )
    return found[0]


def _floating(module: nn.Module) -> tuple[torch.dtype, torch.device] | None:
    """The dtype and the device of all floating-point parameters; None where there are several, or none."""
    found = {(parameter.dtype, parameter.device) for parameter in module.parameters() if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def _with_signature(forward: Any, module: fx.GraphModule) -> Any:
    def signed(self: Growing, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    present = inspect.signature(module.forward)
    vars(signed)["__signature__"] = present.replace(parameters=[own, *present.parameters.values()])
    return signed


def _aliases(module: nn.Module) -> dict[str, str]:
    """The further names of each tied tensor, and its first."""
    first: dict[int, str] = {}
    found = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        known = first.setdefault(id(tensor), name)
        if known != name:
            found[name] = known
    return found


def _write(module: Growing, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Put the ledger in, and take out what tied tensors repeat."""
    for name in _aliases(module):
        state.pop(prefix + name, None)
    state[prefix + LEDGER] = torch.tensor(list(module.graph.ledger.to_json().encode()), dtype=torch.uint8)


def _read(module: Growing, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the ledger out, grow as it says, and repeat tied tensors under all of their names."""
    written = state.pop(prefix + LEDGER, None)
    if written is None:
        raise TrainingError(
            f"the state dictionary has no entry `{prefix}{LEDGER}`, so it is not that of a growing module; load the "
            "weights into `module` instead"
        )
    ledger = Ledger.from_json(bytes(written.tolist()).decode())
    if ledger != module.graph.ledger:
        entries = ledger.after(module.base.ledger)
        if entries is None:
            raise TrainingError("the state dictionary is of a network that did not grow from the same base")
        device = next(module.parameters()).device
        own = replace(module.base, module=copy.deepcopy(module.base.module))
        grown = replay(own, entries)
        grown.module.to(device)
        module.become(grown)
    for name, known in _aliases(module).items():
        if prefix + known in state:
            state.setdefault(prefix + name, state[prefix + known])
