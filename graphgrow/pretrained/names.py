"""The names of a grown model's tensors in the class of its base: layers that were put in are counted through."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import fx, nn

_NUMBERED = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Renaming:
    """How children of numbered containers are called now.

    Attributes:
        layers: by path of a container, for each child in the order of the graph its name there.
    """

    layers: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, module: fx.GraphModule, model: nn.Module) -> Renaming:
        """Of a grown graph and the model that it was captured from.

        Args:
            module: the graph.
            model: whose lists of modules say which paths are containers.
        """
        containers = [path for path, part in model.named_modules() if _is_numbered(part)]
        found: dict[str, dict[str, None]] = {path: {} for path in containers}
        for node in module.graph.nodes:
            if node.op in ("call_module", "get_attr"):
                for path in containers:
                    if str(node.target).startswith(f"{path}."):
                        found[path].setdefault(str(node.target).removeprefix(f"{path}.").partition(".")[0])
        return cls({path: tuple(children) for path, children in found.items() if children})

    def grown(self) -> dict[str, tuple[str, ...]]:
        """The containers that have children which a mutation put in."""
        return {path: names for path, names in self.layers.items() if not all(name.isdigit() for name in names)}

    def name(self, name: str) -> str:
        """The name of a tensor in the class of the base."""
        for path, children in self.grown().items():
            child, dot, rest = name.removeprefix(f"{path}.").partition(".")
            if name.startswith(f"{path}.") and child in children:
                name = f"{path}.{children.index(child)}{dot}{rest}"
        return name

    def origins(self, path: str) -> list[int]:
        """For each child of a container, the number of the one that it is, or is a copy of."""
        numbers = [_NUMBERED.match(name) for name in self.layers[path]]
        return [int(number[1]) for number in numbers if number is not None]


def _is_numbered(part: nn.Module) -> bool:
    """Whether a module is a list or a sequence whose children are called by their place."""
    return isinstance(part, (nn.ModuleList, nn.Sequential)) and all(name.isdigit() for name, _ in part.named_children())


def tensors_of(module: fx.GraphModule, renaming: Renaming) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a grown graph under the names of the base's class, tied ones under each."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {renaming.name(name): tensor.detach() for name, tensor in named}
