"""Where the parent passes no gradient on, or nothing but zeros, whatever its weights: there nothing new can learn."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import fx

from graphgrow.ir.inputs import bind
from graphgrow.verification.case import Case
from graphgrow.verification.copies import double_module
from graphgrow.verification.sensitivity import pulled, random_loss

ROUNDING = 1e-11  # of the largest value or gradient, where numbers are random and large
_DRAWS = 2  # of the weights: what vanishes in theory vanishes for all
_STOPS = ("softmax", "norm", "attention")  # in the names of operators that pass nothing on over one key or feature


class Unheard:
    """New parameters of the child that the parent leaves without a gradient.

    They stand in front of a softmax over one key, of a norm over one feature, or behind a value that is zero; or they
    are copies of such ones, in front of a softmax or norm of their own that passes nothing on, as one of the
    parent does.

    Args:
        case: parent and child.
        batch: samples in a batch.
    """

    def __init__(self, case: Case, batch: int | None) -> None:
        self._case, self._batch = case, batch
        runs = self._records(case.parent.module)
        self._silent = frozenset.intersection(*(run.silent for run in runs))
        self._zero = frozenset.intersection(*(run.zero for run in runs))
        nodes = list(case.parent.module.graph.nodes)
        self._old = {node.name for node in nodes} - case.counterparts.created
        stopping = [node for node in nodes if _stops(node, case.parent.module, self._silent)]
        self._stops = {_called(node, case.parent.module) for node in stopping}

    def _records(self, module: fx.GraphModule) -> list[_Record]:
        return [_Record(self._case, module, self._batch, self._case.probes.seed + number) for number in range(_DRAWS)]

    @cached_property
    def _silent_in_child(self) -> tuple[frozenset[str], frozenset[str]]:
        """Of the differentiable nodes of the child: those without a gradient (or of several values), and the others."""
        runs = self._records(self._case.child.module)
        silent = frozenset.intersection(*(run.silent for run in runs))
        return silent | runs[0].several, frozenset.union(*(run.differentiable for run in runs)) - silent

    def __contains__(self, name: str) -> bool:
        """Whether all that reads what a parameter is in passes nothing on, or all that it is fed is zero."""
        using = [node for node in self._case.child.module.graph.nodes if uses(node, name)]
        readers = {reader for node in using for reader in self._old_ones(node, forward=True)}
        feeding = {node for used in using for source in used.all_input_nodes for node in self._old_ones(source, False)}
        unheard = readers <= self._silent or (bool(feeding) and feeding <= self._zero)
        return bool(using) and (unheard or self._stopped(using))

    def _stopped(self, using: list[fx.Node]) -> bool:
        """Whether the first nodes from some on that have a gradient are operators that stop it in the parent too."""
        silent, heard = self._silent_in_child
        first: list[fx.Node] = []
        seen, waiting = set(using), list(using)
        while waiting:
            node = waiting.pop()
            if node.name in heard:
                first.append(node)
            if node.name not in silent:
                continue
            further = [user for user in node.users if user not in seen]
            seen.update(further)
            waiting.extend(further)
        module = self._case.child.module
        return bool(first) and all(node not in using and _called(node, module) in self._stops for node in first)

    def _old_ones(self, start: fx.Node, forward: bool) -> set[str]:
        """Names of the first old nodes from a node on, itself included, or of those whose values are carried there."""
        found: set[str] = set()
        seen, waiting = {start}, [start]
        while waiting:
            node = waiting.pop()
            origins = {node.name} if node.name in self._old else self._case.counterparts.carried_by(node.name)
            if (forward and origins) or node.name in self._old:
                found |= origins  # what reads a carrier reads what it carries on
                continue
            further = [other for other in (node.users if forward else node.all_input_nodes) if other not in seen]
            seen.update(further)
            waiting.extend(further)
        return found


def uses(node: fx.Node, name: str) -> bool:
    """Whether a node fetches a parameter, or calls the module that holds it."""
    if node.op == "get_attr":
        return node.target == name
    return node.op == "call_module" and name.startswith(f"{node.target}.")


def _stops(node: fx.Node, module: fx.GraphModule, silent: frozenset[str]) -> bool:
    """Whether a softmax or a norm has a gradient, and something that it reads has none."""
    named = any(word in _called(node, module).lower() for word in _STOPS)
    return named and node.name not in silent and any(used.name in silent for used in node.all_input_nodes)


def _called(node: fx.Node, module: fx.GraphModule) -> str:
    """The name of what a node calls."""
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


class _Record(fx.Interpreter):
    """Runs a graph once with random numbers added to all of its parameters.

    Attributes:
        differentiable: names of the nodes whose values depend on parameters.
        silent: names of those without a gradient but rounding.
        several: names of the nodes whose values are tensors in a tuple or list.
        zero: names of those whose values are zero but for rounding.
    """

    def __init__(self, case: Case, side: fx.GraphModule, batch: int | None, seed: int) -> None:
        module = double_module(side).train("train" in case.modes)
        super().__init__(module, garbage_collect_values=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(drawn.to(parameter.device, parameter.dtype))
        args, kwargs = case.inputs_of(side, case.probes.spec.sample(seed, batch, torch.float64))
        self._values: dict[str, torch.Tensor] = {}
        self._several: set[str] = set()
        self._bound = (args, kwargs)
        with torch.enable_grad():
            loss = random_loss(self._outputs())
            known = {name: value for name, value in self._values.items() if value.requires_grad}
            found = dict(zip(known, pulled(loss, list(known.values())), strict=True))
        gradients = {
            name: 0.0 if g is None else float(g.abs().max()) for name, g in found.items() if known[name].numel()
        }
        sizes = {name: float(v.detach().abs().max()) for name, v in self._values.items() if v.numel()}
        self.differentiable, self.several = frozenset(known), frozenset(self._several)
        self.silent = _rounding(gradients)
        self.zero = _rounding(sizes)

    def _outputs(self) -> Any:
        nodes = [node for node in self.graph.nodes if node.op == "placeholder"]
        bound = bind([str(node.target) for node in nodes], *self._bound)
        defaults = {str(node.target): node.args[0] if node.args else None for node in nodes}
        return self.run(*({**defaults, **bound}).values())

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node, which is kept where it is a tensor of floating point."""
        value = super().run_node(n)
        if n.op != "output" and isinstance(value, torch.Tensor) and value.is_floating_point():
            self._values[n.name] = value
        elif isinstance(value, (tuple, list)) and any(isinstance(item, torch.Tensor) for item in value):
            self._several.add(n.name)
        return value


def _rounding(sizes: dict[str, float]) -> frozenset[str]:
    top = max(sizes.values(), default=0.0)
    return frozenset(name for name, size in sizes.items() if size <= ROUNDING * top)
