"""Layers that growth put into a model's lists of modules: copies of those that were there, counted through."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn

from graphgrow.pretrained.config import Shapes, count_layers
from graphgrow.pretrained.names import Renaming


def insert_layers(model: nn.Module, ungrown: nn.Module, renaming: Renaming, shapes: Shapes) -> None:
    """Put copies of layers into the lists of a model, in place, with tensors of their own.

    Attributes that number the layers of a list (`layer_idx`: in each layer its place) number them anew, and
    configurations that count them are counted again. A copy that was made before its layer grew has the numbers that
    this one had then.

    Args:
        model: of the class that was captured, with the numbers of the grown sizes.
        ungrown: the same with the numbers that it had.
        renaming: which layers the grown graph has in which list.
        shapes: of the grown graph's tensors.
    """
    for path, names in renaming.grown().items():
        origins = renaming.origins(path)
        if len(origins) != len(names):
            continue  # a layer of another kind: its tensors will have no place
        container = model.get_submodule(path)
        numbers, now, before = list(_numbering(container)), *map(_children, (container, ungrown.get_submodule(path)))
        layers = []
        for name, origin in zip(names, origins, strict=True):
            alike = _within(shapes, f"{path}.{name}.") == _within(shapes, f"{path}.{origin}.")
            layers.append(now[origin] if name.isdigit() else copy.deepcopy((now if alike else before)[origin]))
        container._modules.clear()
        for number, layer in enumerate(layers):
            container.add_module(str(number), layer)
            for inner, attribute in numbers:
                setattr(layer.get_submodule(inner), attribute, number)
    for config, holders in _configurations(model):
        within = {path: names for path, names in renaming.layers.items() if _is_of(path, holders)}
        count_layers(config, Renaming(within))


def _children(module: nn.Module) -> list[nn.Module]:
    return list(module.children())


def _within(shapes: Shapes, prefix: str) -> Shapes:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _numbering(container: nn.Module) -> Iterator[tuple[str, str]]:
    """Attributes, by path within a layer and name, that are the layer's place in each of several layers."""
    layers = _children(container)
    if len(layers) < 2:
        return
    for inner, part in layers[0].named_modules():
        for name, value in vars(part).items():
            counted = [_attribute(layer, inner, name) for layer in layers]
            if type(value) is int and counted == list(range(len(layers))):
                yield inner, name


def _attribute(layer: nn.Module, inner: str, name: str) -> Any:
    try:
        return vars(layer.get_submodule(inner)).get(name)
    except AttributeError:
        return None


def _configurations(model: nn.Module) -> list[tuple[Any, list[str]]]:
    """The objects that modules hold as their `config`, each once, and the paths of those modules."""
    found: dict[int, tuple[Any, list[str]]] = {}
    for path, part in model.named_modules():
        config = getattr(part, "config", None)
        if config is not None:
            found.setdefault(id(config), (config, []))[1].append(path)
    return list(found.values())


def _is_of(path: str, holders: list[str]) -> bool:
    """Whether a container lies within one of some modules, or one of them within it."""
    return any(not one or f"{path}.".startswith(f"{one}.") or one.startswith(f"{path}.") for one in holders)
