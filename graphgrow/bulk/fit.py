"""How the tensors and settings of a grown graph go into a model of another class's own code."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.bulk.demands import Tail, listed
from graphgrow.bulk.grafts import Graft, within
from graphgrow.bulk.lineage import renamed
from graphgrow.errors import Unsupported
from graphgrow.ir.facts import Normalisation
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.network.network import Network
from graphgrow.network.sites import scope_of


@dataclass(frozen=True)
class Fit:
    """What goes where.

    Attributes:
        names: by name of each parameter and buffer of the model that is loaded, that of the grown graph's.
        settings: by path of an attribute (`norm.eps`), the value that it must have.
        untouched: the model's tensors that its forward does not use, and that the graph does not have.
        grafts: blocks of the model's own, which the graph does not have.
        tails: by name of a tensor of the model's, what it has at the end of each axis and the graph does not.
    """

    names: Mapping[str, str]
    settings: Mapping[str, float]
    untouched: tuple[str, ...]
    grafts: tuple[Graft, ...] = ()
    tails: Mapping[str, tuple[Tail, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        grown: Network,
        target: Network,
        model: nn.Module,
        paths: Mapping[str, str],
        grafts: tuple[Graft, ...] = (),
        tails: Mapping[str, tuple[Tail, ...]] | None = None,
    ) -> Fit:
        """Match every tensor of the model with one of the grown graph, by name, shape and dtype.

        Args:
            grown: the graph with the model's shapes.
            target: the model, captured.
            model: the model.
            paths: by path of a block of the model, the path of the grown graph's block in its place.
            grafts: blocks that the model has for itself.
            tails: what the model's tensors have at the end of their axes for such blocks.

        Raises:
            Unsupported: names the first tensors that do not match, and why.
        """
        mine, used = _all_tensors(grown.module), _all_tensors(target.module)
        stored = set(model.state_dict())
        names: dict[str, str] = {}
        untouched: list[str] = []
        faults: list[str] = []
        for name, tensor in _all_tensors(model).items():
            key = renamed(name, paths)
            if within(name, grafts) and not tensor.is_meta:
                continue
            if not within(name, grafts) and key in mine and (name in stored or tensor.is_meta):
                names[name] = key
                fault = _difference(name, tensor, mine[key], (tails or {}).get(name))
                faults += [] if fault is None else [fault]
            elif tensor.is_meta:
                faults.append(f"`{name}` has no values: it is on the meta device and the graph does not have it")
            elif name in used and name in stored:
                faults.append(f"`{name}` {tuple(tensor.shape)} of the target is not in the graph")
            elif name in stored:
                untouched.append(name)
        taken = {id(mine[key]) for key in names.values()}
        for key, parameter in grown.module.named_parameters():
            if id(parameter) not in taken:
                faults.append(f"`{key}` {tuple(parameter.shape)} of the graph is not in the target")
        faults += _torn(model, names, mine)
        if faults:
            raise Unsupported(f"the target does not fit: {listed(faults)}. It must be a larger model of the same class")
        return cls(names, _settings(grown, target, model, paths, grafts), tuple(untouched), grafts, dict(tails or {}))

    def load(self, grown: Network, model: nn.Module) -> None:
        """Write tensors and settings into the model, in place; tensors on the meta device get memory first."""
        _materialise(model, grown.inputs.device)
        sources, targets = _all_tensors(grown.module), _all_tensors(model)
        with torch.no_grad():
            for name, key in self.names.items():
                _old_part(targets[name], sources[key]).copy_(sources[key])
                for axis, tail in enumerate(self.tails.get(name, ())):
                    if tail.read:
                        targets[name].narrow(axis, sources[key].shape[axis], tail.units).zero_()
        for place, value in self.settings.items():
            path, _, attribute = place.rpartition(".")
            setattr(model.get_submodule(path), attribute, value)
        for graft in self.grafts:
            graft.close(model)

    def load_graph(self, grown: Network, model: nn.Module, target: Network) -> None:
        """Write what a loaded model holds into the capture of it, in place; what is on the meta device gets memory."""
        _materialise(target.module, grown.inputs.device)
        sources, targets = _all_tensors(model), _all_tensors(target.module)
        with torch.no_grad():
            for name in targets.keys() & sources.keys():
                targets[name].copy_(sources[name])
        for place, value in self.settings.items():
            part = dict(target.module.named_modules()).get(place.rpartition(".")[0])
            if part is not None and "eps" in vars(part):
                part.eps = value

    def hand_over(self, optimizer: Optimizer, grown: Network, model: nn.Module) -> None:
        """Let an optimizer over the grown graph's parameters train the model's instead, its state unchanged."""
        sources, targets = _all_tensors(grown.module), _all_tensors(model)
        heirs: dict[int, dict[int, torch.Tensor]] = {}
        for name, key in self.names.items():
            heirs.setdefault(id(sources[key]), {})[id(targets[name])] = targets[name]
        for group in optimizer.param_groups:
            group["params"] = [heir for p in group["params"] for heir in heirs.get(id(p), {id(p): p}).values()]
        for parameter in [p for p in optimizer.state if id(p) in heirs]:
            state = optimizer.state.pop(parameter)
            for heir in heirs[id(parameter)].values():
                optimizer.state[heir] = {key: _moved(value, parameter, heir) for key, value in state.items()}
        for graft in self.grafts:
            graft.join(optimizer, model)


def _all_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def _old_part(wanted: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Of a tensor that may have more units at the end of its axes those that another has."""
    return wanted[tuple(slice(size) for size in present.shape)]


def _difference(
    name: str, wanted: torch.Tensor, present: torch.Tensor, tail: tuple[Tail, ...] | None = None
) -> str | None:
    more = [part.units for part in tail] if tail else [0] * wanted.dim()
    if [size - extra for size, extra in zip(wanted.shape, more, strict=True)] != [*present.shape]:
        return f"`{name}` has shape {tuple(wanted.shape)} in the target and {tuple(present.shape)} in the grown graph"
    if wanted.dtype != present.dtype:
        return f"`{name}` is {wanted.dtype} in the target and {present.dtype} in the graph; convert one of them first"
    return None


def _torn(model: nn.Module, names: Mapping[str, str], mine: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Tensors that the model ties and the graph holds apart."""
    first: dict[int, str] = {}
    for name, tensor in _all_tensors(model).items():
        other = first.setdefault(id(tensor), name)
        if name not in names or other not in names:
            continue
        left, right = mine[names[other]], mine[names[name]]
        if left is not right and not torch.equal(left, right):
            yield f"the target ties `{other}` and `{name}`, which the graph holds apart"


def _settings(
    grown: Network, target: Network, model: nn.Module, paths: Mapping[str, str], grafts: tuple[Graft, ...]
) -> dict[str, float]:
    """The eps of every norm of the model that is another in the grown graph."""
    found: dict[str, float] = {}
    theirs = dict(grown.module.named_modules(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        mine = None if within(path, grafts) else theirs.get(renamed(path, paths))
        eps = vars(mine).get("eps") if type(mine) is type(module) else None
        if eps is not None and eps != vars(module).get("eps"):
            found[f"{path}.eps"] = float(eps)
    for path, raised in target.module.named_modules(remove_duplicate=False):
        mine = None if within(path, grafts) else theirs.get(renamed(path, paths))
        if not isinstance(raised, RootMeanSquareNorm) or not isinstance(mine, RootMeanSquareNorm):
            continue
        if type(model.get_submodule(path)) is not RootMeanSquareNorm and mine.eps != raised.eps:
            found[_attribute(model, path, raised.eps)] = mine.eps
    common = (norm for norm in _functional_norms(target) if not within(norm[0], grafts))
    for mine, wanted in zip(_functional_norms(grown), common, strict=False):
        if mine[1].eps_value != wanted[1].eps_value:
            found[_attribute(model, wanted[0], wanted[1].eps_value)] = mine[1].eps_value
    return found


def _functional_norms(network: Network) -> Iterator[tuple[str, Normalisation]]:
    """The norms that are called as functions, with the path of the module in whose forward that is."""
    for facts in network.analysis.facts.values():
        for norm in facts.normalisations:
            if norm.eps is not None and not norm.eps.on_module:
                yield scope_of(facts.node), norm


def _attribute(model: nn.Module, path: str, value: float) -> str:
    """Where a module keeps the eps that it hands to a functional norm.

    Raises:
        Unsupported: if not exactly one of its attributes has that value.
    """
    module = model.get_submodule(path)
    found = [name for name, item in vars(module).items() if isinstance(item, float) and item == value]
    if len(found) != 1:
        raise Unsupported(
            f"the eps {value:g} of the norm in `{path}` must change, but {len(found)} attributes of it have that "
            "value; keep it in one attribute of the module, as self.eps"
        )
    return f"{path}.{found[0]}"


def _materialise(model: nn.Module, device: torch.device) -> None:
    """Give memory to what is on the meta device; what is tied stays tied."""
    twins: dict[int, torch.Tensor] = {}
    for module in model.modules():
        stores: list[dict[str, Any]] = [module._parameters, module._buffers]
        for store in stores:
            for name, tensor in store.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in twins:
                    new = torch.empty_like(tensor, device=device)
                    parameter = isinstance(tensor, nn.Parameter)
                    twins[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if parameter else new
                store[name] = twins[id(tensor)]


def _moved(state: Any, parameter: torch.Tensor, heir: torch.Tensor) -> Any:
    """A copy of one entry of optimizer state, beside the heir where it has the parameter's shape.

    Units that the heir has besides get the mean of what is nowhere below zero, as squares are, and zero else.
    """
    if not isinstance(state, torch.Tensor):
        return copy.copy(state)
    if state.shape != parameter.shape or not state.dim():
        return state.clone()
    fill = float(state.mean()) if bool((state >= 0).all()) else 0.0
    moved = torch.full(heir.shape, fill, dtype=state.dtype, device=heir.device)
    _old_part(moved, state).copy_(state)
    return moved
