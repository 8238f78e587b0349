"""The module tree of a graph, as generated code sees it: which modules only hold others, and how each is reached."""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn


class Tree:
    """The modules of a graph module: the root, holders, and the parts that the graph calls.

    A holder is a module that the graph never calls, only something below it, whatever its class: the name spaces that
    fx makes, and blocks that passes put in operator by operator.

    Attributes:
        root: the graph module.
        is_numbered: whether some submodules directly below the root have numbers for names.
    """

    def __init__(self, root: fx.GraphModule) -> None:
        self.root = root
        self.is_numbered = any(name.isdigit() for name, _ in children(root))
        called = {str(node.target) for node in root.graph.nodes if node.op == "call_module"}
        self._fetched = {str(node.target) for node in root.graph.nodes if node.op == "get_attr"}
        above = {path for target in called | self._fetched for path in _prefixes(target)}
        parts = {id(root.get_submodule(target)) for target in called}
        self._holders = {id(module) for path, module in root.named_modules() if path in above or _is_plain(module)}
        self._holders -= {*parts, id(root)}

    def is_holder(self, module: object) -> bool:
        """Whether a module other than the root only holds others."""
        return id(module) in self._holders

    def holder_names(self) -> set[str]:
        """The qualified names of all holders, and of the root."""
        everything = self.root.named_modules(remove_duplicate=False)
        return {name for name, module in everything if self.is_holder(module)} | {""}

    def is_list(self, holder: nn.Module) -> bool:
        """Whether a holder can be written as an nn.ModuleList: nothing but children, numbered from 0 in their order."""
        if holder._parameters or holder._buffers or self.attributes(holder, ""):
            return False
        names = list(holder._modules)
        return bool(names) and names == [str(number) for number in range(len(names))]

    def attributes(self, holder: nn.Module, path: str) -> dict[str, Any]:
        """What the graph fetches from a holder, or the root, that is no tensor."""
        prefix = f"{path}." if path else ""
        names = [name for name in vars(holder) if prefix + name in self._fetched]
        return {name: vars(holder)[name] for name in names}

    def walk(self) -> Iterator[tuple[list[str], nn.Module]]:
        """Root, holders and parts by path, in order, each under all its names; below a part nothing."""
        pending: list[tuple[list[str], nn.Module]] = [([], self.root)]
        seen: set[int] = set()
        while pending:
            path, module = pending.pop(0)
            yield path, module
            if (module is self.root or self.is_holder(module)) and id(module) not in seen:
                seen.add(id(module))
                pending = [([*path, name], child) for name, child in children(module)] + pending

    def parts(self) -> list[tuple[list[str], nn.Module]]:
        """The modules that constructors make, by path."""
        return [(path, module) for path, module in self.walk() if path and not self.is_holder(module)]

    def access(self, path: Sequence[str], start: str = "self") -> ast.expr:
        """The expression that reaches a submodule, or an attribute of one: self.blocks[0].attention.weight."""
        expression: ast.expr = ast.Name(start, ast.Load())
        holder: Any = self.root
        for segment in path:
            if segment.isdigit() and self._takes_numbers(holder):
                expression = ast.Subscript(expression, ast.Constant(int(segment)), ast.Load())
            elif is_plain_name(segment):
                expression = ast.Attribute(expression, segment, ast.Load())
            else:
                called = ast.Name("getattr", ast.Load())
                expression = ast.Call(called, [expression, ast.Constant(segment)], [])
            holder = getattr(holder, segment, None)
        return expression

    def _takes_numbers(self, module: Any) -> bool:
        """Whether what is written for a module reaches its children by number."""
        if module is self.root:
            return self.is_numbered
        return self.is_holder(module) or isinstance(module, (nn.Sequential, nn.ModuleList))


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The submodules directly below one, under all their names."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """The parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def is_plain_name(name: str) -> bool:
    """Whether code can write a name behind a dot, or as a keyword argument."""
    return name.isidentifier() and not keyword.iskeyword(name)


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Whether a tensor is laid out with its channels last, and not in the order of its axes as well."""
    if tensor.dim() != 4 or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)


def _prefixes(target: str) -> list[str]:
    """a.b.c -> a, a.b."""
    parts = target.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Module
