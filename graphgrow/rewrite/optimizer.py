"""Carrying an optimizer's state over to a grown model, in place, so that schedulers and scalers survive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.errors import OptimizerError
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.roles import state_roles


class Migration:
    """The new state of an optimizer, worked out first and written at once, so that a failure changes nothing.

    Raises:
        OptimizerError: if the optimizer's class, or a state tensor of it, is unknown.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._known = state_roles(optimizer)
        self._heirs: dict[int, torch.Tensor] = {}  # by id of the parameter in the optimizer, its newest successor
        self._sources: dict[int, torch.Tensor] = {}  # by id of a successor, the parameter in the optimizer
        self._states: dict[int, dict[str, Any]] = {}
        self._retired: set[int] = set()  # ids of parameters that have no successor
        self._adopted: dict[int, list[torch.Tensor]] = {}  # by position of a param_group, what joins it
        self._beside: dict[int, int] = {}  # by id of what joins, that of a parameter in the optimizer that it is like
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                self._heirs[id(parameter)] = parameter
                self._sources[id(parameter)] = parameter
                self._states[id(parameter)] = dict(optimizer.state.get(parameter, {}))

    def require_any(self, parameters: Iterable[nn.Parameter]) -> None:
        """See that the optimizer is this network's, of which it may train a part alone.

        Raises:
            OptimizerError: if it trains none of the parameters.
        """
        held = [id(parameter) for parameter in parameters]
        if held and self._sources.keys().isdisjoint(held):
            raise OptimizerError(
                "the optimizer trains none of the parameters of this graph, but those of another model, or of a copy; "
                "make it from graph.module.parameters()"
            )

    def follow(self, changes: Sequence[TensorChange]) -> None:
        """Work out the state after one mutation."""
        for change in changes:
            source = self._sources.pop(id(change.old), None)
            if source is None:  # new itself, or a buffer, or a parameter that this optimizer does not train
                for joined in self._adopted.values():
                    joined[:] = [change.new if tensor is change.old else tensor for tensor in joined]
                if id(change.old) in self._beside:
                    self._beside[id(change.new)] = self._beside.pop(id(change.old))
                continue
            self._heirs[id(source)] = change.new
            self._sources[id(change.new)] = source
            state = self._states[id(source)]
            self._states[id(source)] = {name: self._carried(name, item, change) for name, item in state.items()}

    def replace(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """Let a plain copy take a parameter's place."""
        self.follow([TensorChange(("",), old, new, lambda state, _: state)])

    def adopt(self, tensor: nn.Parameter, neighbours: Iterable[nn.Parameter]) -> None:
        """Let a new parameter join the group of the first neighbour that the optimizer trains.

        It starts without state, and so with a step count of its own; where that would make its first steps too long,
        with the mean squares of the first neighbour of as many axes that has some.

        Raises:
            OptimizerError: if it trains none of them.
        """
        found = False
        for neighbour in neighbours:
            position = self._group_of(neighbour)
            if position is None:
                continue
            if not found:
                self._adopted.setdefault(position, []).append(tensor)
                found = True
            source = self._source_of(neighbour)
            if not self._known.uncorrected:
                return
            if source is not None and self._states[source] and neighbour.dim() == tensor.dim():
                self._beside[id(tensor)] = source
                return
        if found:
            return
        raise OptimizerError(
            "the optimizer trains no parameter that a new one could stand beside; make it from "
            "graph.module.parameters()"
        )

    def retire(self, tensor: nn.Parameter) -> None:
        """Let go of a parameter that the network no longer has."""
        for joined in self._adopted.values():
            joined[:] = [other for other in joined if other is not tensor]
        source = self._sources.pop(id(tensor), None)
        if source is not None:
            self._retired.add(id(tensor))

    def _source_of(self, parameter: nn.Parameter) -> int | None:
        """The id of the parameter in the optimizer whose state speaks for this one."""
        source = self._sources.get(id(parameter))
        return self._beside.get(id(parameter)) if source is None else id(source)

    def _group_of(self, parameter: nn.Parameter) -> int | None:
        source = self._sources.get(id(parameter))
        for position, group in enumerate(self._optimizer.param_groups):
            if any(tensor is parameter for tensor in self._adopted.get(position, ())):
                return position
            if source is not None and any(tensor is source for tensor in group["params"]):
                return position
        return None

    def commit(self, names: Mapping[int, str]) -> None:
        """Write the new parameters and states into the optimizer.

        Args:
            names: by id of a parameter of the grown network, what it is called, for an optimizer of named parameters.
        """
        for number, group in enumerate(self._optimizer.param_groups):
            known = zip(group["params"], group.get("param_names", ()), strict=False)
            called = dict(names) | {id(self._heirs[id(parameter)]): name for parameter, name in known}
            for position, parameter in enumerate(group["params"]):
                heir = self._heirs[id(parameter)]
                if heir is parameter:
                    continue
                group["params"][position] = heir
                self._optimizer.state.pop(parameter, None)
                state = self._states[id(parameter)]
                if state:
                    self._optimizer.state[heir] = state
            gone = [parameter for parameter in group["params"] if id(parameter) in self._retired]
            for parameter in gone:
                self._optimizer.state.pop(parameter, None)
            group["params"][:] = [parameter for parameter in group["params"] if id(parameter) not in self._retired]
            for parameter in self._adopted.get(number, ()):
                group["params"].append(parameter)
                if id(parameter) in self._beside:
                    self._optimizer.state[parameter] = self._begun(parameter, self._states[self._beside[id(parameter)]])
                elif self._known.start is not None:
                    self._optimizer.state[parameter] = self._known.start(group, parameter)
            if "param_names" in group:
                group["param_names"][:] = [called[id(parameter)] for parameter in group["params"]]

    def _begun(self, parameter: torch.Tensor, beside: Mapping[str, Any]) -> dict[str, Any]:
        """The first state of a new parameter: squares at the mean of a neighbour's, all else at zero."""
        found = {}
        for name, item in beside.items():
            role = self._known.roles.get(name)
            if role is not None:
                level = float(item.abs().mean()) if role.averaged else 0.0
                found[name] = torch.full_like(parameter.detach(), level, dtype=item.dtype)
            else:
                found[name] = torch.zeros_like(item) if isinstance(item, torch.Tensor) else item
        return found

    def _carried(self, name: str, item: Any, change: TensorChange) -> Any:
        if item is None or isinstance(item, (bool, int, float)) or _is_scalar(item):
            return item
        kind = type(self._optimizer).__name__
        if name not in self._known.roles:
            raise OptimizerError(
                f"{kind} keeps a state `{name}` that cannot be carried over; say what it holds with "
                "gg.register_optimizer, or grow without `optimizer` and make a new one"
            )
        if not isinstance(item, torch.Tensor) or item.shape != change.old.shape:
            what = f"shape {tuple(item.shape)}" if isinstance(item, torch.Tensor) else f"type {type(item).__name__}"
            raise OptimizerError(
                f"{kind} keeps a state `{name}` of {what} for a parameter of shape {tuple(change.old.shape)}; only "
                "tensors of the parameter's shape can be carried over"
            )
        return change.carry(item, self._known.roles[name])


def _is_scalar(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dim() == 0
