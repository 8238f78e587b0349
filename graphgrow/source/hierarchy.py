"""The body of a generated `__init__`: submodules and tensors nested as in the graph, under the same names."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from graphgrow.errors import ExportError
from graphgrow.source.constructors import constructor
from graphgrow.source.imports import Imports
from graphgrow.source.layout import layout, one_line
from graphgrow.source.tree import Tree, children, is_channels_last, is_plain_name, tensors_of

PART = "Part"
PART_SOURCE = f'''class {PART}(nn.Module):
    """Submodules and tensors under the names that they have in the state_dict."""

    def __init__(self, /, **members: Any) -> None:
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)

    def __getitem__(self, number: int) -> Any:
        return getattr(self, str(number))
'''
_INDENT = 8
_MARGIN = " " * _INDENT


class Hierarchy:
    """Writes the statements that build the modules of a graph.

    Args:
        tree: the modules; holders are nested in each other, all else is made by a constructor call.
        imports: takes what the statements refer to.

    Attributes:
        uses_part: whether the class of `PART_SOURCE` is needed, by the statements or as a base that counts modules.
    """

    def __init__(self, tree: Tree, imports: Imports) -> None:
        self._tree = tree
        self._imports = imports
        self._counts = Counter(id(module) for _, module in tree.walk())
        self._shared: dict[int, str] = {}
        self._before: list[str] = []
        self._dtype = _uniform_dtype(tree.root)
        self.uses_part = tree.is_numbered

    def lines(self) -> list[str]:
        """The statements behind `super().__init__()`, indented.

        Raises:
            ExportError: if a module cannot be made by a constructor call.
        """
        members = [self._statement(name, value) for name, value in self._members(self._tree.root, "")]
        changes = [*self._conversions(), *_ties(self._tree), *_frozen(self._tree, self._tree.root, [])]
        return [*self._before, *members, *(_MARGIN + line for line in changes)]

    def _statement(self, name: str, value: ast.expr) -> str:
        if is_plain_name(name):
            return f"{_MARGIN}self.{name} = " + layout(value, _INDENT, len(f"self.{name} = "))
        adds = ast.Attribute(_name("self"), "add_module", ast.Load())
        named = [ast.Constant(name), value]
        call = ast.Call(adds, named, [])
        if name not in self._tree.root._modules:
            call = ast.Call(_name("setattr"), [_name("self"), *named], [])
        return _MARGIN + layout(call, _INDENT)

    def _members(self, holder: nn.Module, path: str) -> Iterator[tuple[str, ast.expr]]:
        """What a holder, or the root, holds of its own: tensors, then modules."""
        for name, parameter in holder._parameters.items():
            if parameter is not None:
                yield name, self._parameter(parameter)
        for name, buffer in holder._buffers.items():
            if buffer is not None:
                yield name, self._buffer(buffer, name not in holder._non_persistent_buffers_set)
        for name, value in self._tree.attributes(holder, path).items():
            yield name, self._literal(value, f"{path}.{name}" if path else name)
        for name, child in children(holder):
            yield name, self._module(child, f"{path}.{name}" if path else name)

    def _module(self, module: nn.Module, path: str) -> ast.expr:
        """A module, by the name of a local variable where several places share it."""
        if id(module) in self._shared:
            return _name(self._shared[id(module)])
        holder = self._tree.is_holder(module)
        made = self._holder(module, path) if holder else constructor(module, path, self._imports)
        if self._counts[id(module)] == 1:
            return made
        last = path.rpartition(".")[2]
        name = f"shared_{last}" if last.isidentifier() else "shared"
        name += f"_{len(self._shared)}" if name in self._shared.values() else ""
        self._shared[id(module)] = name
        self._before.append(f"{_MARGIN}{name} = " + layout(made, _INDENT, len(f"{name} = ")))
        return _name(name)

    def _holder(self, module: nn.Module, path: str) -> ast.expr:
        members = dict(self._members(module, path))
        if self._tree.is_list(module):
            items = list(members.values())
            alike = len({ast.dump(item) for item in items}) == 1 and len(items) > 1
            listed = _repeated(items) if alike else ast.List(items, ast.Load())
            return ast.Call(self._imports.reference(nn.ModuleList), [listed], [])
        self.uses_part = True
        if all(map(is_plain_name, members)):
            return ast.Call(_name(PART), [], [ast.keyword(name, value) for name, value in members.items()])
        keys: list[ast.expr | None] = [ast.Constant(name) for name in members]
        return ast.Call(_name(PART), [], [ast.keyword(None, ast.Dict(keys, list(members.values())))])

    def _parameter(self, parameter: nn.Parameter) -> ast.expr:
        keywords = [] if _can_learn(parameter) else [ast.keyword("requires_grad", ast.Constant(False))]
        return ast.Call(self._imports.reference(nn.Parameter), [self._zeros(parameter)], keywords)

    def _buffer(self, buffer: torch.Tensor, persistent: bool) -> ast.expr:
        keywords = [] if persistent else [ast.keyword("persistent", ast.Constant(False))]
        return ast.Call(self._imports.reference(nn.Buffer), [self._zeros(buffer)], keywords)

    def _zeros(self, tensor: torch.Tensor) -> ast.expr:
        implied = self._dtype if tensor.is_floating_point() else None
        keywords = []
        if tensor.dtype is not implied and not _goes_without_saying(tensor.dtype):
            keywords.append(ast.keyword("dtype", self._imports.literal(tensor.dtype)))
        sizes: list[ast.expr] = [ast.Constant(size) for size in tensor.shape]
        return ast.Call(self._imports.reference(torch.zeros), sizes or [ast.Tuple([], ast.Load())], keywords)

    def _literal(self, value: Any, path: str) -> ast.expr:
        try:
            return self._imports.literal(value)
        except ExportError as error:
            raise ExportError(f"`{path}` is no tensor: {error}; delete it from the module") from None

    def _conversions(self) -> Iterator[str]:
        """Statements that give tensors another dtype or memory layout than constructors do."""
        if self._dtype is not None and not _goes_without_saying(self._dtype):
            yield f"self.to({self._dtype})"
        elif self._dtype is None:
            for path, module in self._tree.parts():
                dtype = _uniform_dtype(module)
                if dtype is not None and not _goes_without_saying(dtype):
                    yield f"{one_line(self._tree.access(path))}.to({dtype})"
        root = self._tree.root
        if _has_channels_last(root) and not any(map(_is_in_order, tensors_of(root))):
            yield "self.to(memory_format=torch.channels_last)"
            return
        for path, module in self._tree.parts():
            if _has_channels_last(module):
                yield f"{one_line(self._tree.access(path))}.to(memory_format=torch.channels_last)"


def mode_lines(tree: Tree, start: str) -> list[str]:
    """Calls of train() and eval() that bring a module, which is in train mode, into the mode of this one."""
    return list(_modes(tree, tree.root, [], True, start))


def _goes_without_saying(dtype: torch.dtype) -> bool:
    """Whether constructors make it by themselves, here and wherever nobody has chosen another default."""
    return dtype is torch.float32 and torch.get_default_dtype() is torch.float32


def _has_channels_last(module: nn.Module) -> bool:
    return any(map(is_channels_last, tensors_of(module)))


def _is_in_order(tensor: torch.Tensor) -> bool:
    """Whether a tensor has four axes and is contiguous in their order alone."""
    contiguous = tensor.dim() == 4 and tensor.is_contiguous()
    return contiguous and not tensor.is_contiguous(memory_format=torch.channels_last)


def _modes(tree: Tree, module: nn.Module, path: list[str], present: bool, start: str) -> Iterator[str]:
    if module.training != present:
        yield f"{one_line(tree.access(path, start))}.{'train' if module.training else 'eval'}()"
    for name, child in children(module):
        yield from _modes(tree, child, [*path, name], module.training, start)


def _frozen(tree: Tree, module: nn.Module, path: list[str]) -> Iterator[str]:
    """Statements that switch gradients off, one for each part of the tree that has none."""
    floating = [one for one in module.parameters() if _can_learn(one)]
    if not floating or all(one.requires_grad for one in floating):
        return
    if not any(one.requires_grad for one in floating):
        yield f"{one_line(tree.access(path))}.requires_grad_(False)"
        return
    for name, parameter in module._parameters.items():
        if parameter is not None and not parameter.requires_grad and _can_learn(parameter):
            yield f"{one_line(tree.access([*path, name]))}.requires_grad_(False)"
    for name, child in children(module):
        yield from _frozen(tree, child, [*path, name])


def _can_learn(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _ties(tree: Tree) -> Iterator[str]:
    """Statements that make several names of one tensor, which constructors made apart, one again."""
    first: dict[int, list[str]] = {}
    seen: set[int] = set()
    for path, module in tree.walk():
        if id(module) in seen:
            continue
        seen.add(id(module))
        whole = bool(path) and not tree.is_holder(module)
        for inner, part in _below(path, module) if whole else [(path, module)]:
            for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
                place = [*inner, name]
                if tensor is not None and first.setdefault(id(tensor), place) is not place:
                    yield f"{one_line(tree.access(place))} = {one_line(tree.access(first[id(tensor)]))}"


def _below(path: list[str], module: nn.Module) -> list[tuple[list[str], nn.Module]]:
    return [([*path, *name.split(".")] if name else path, part) for name, part in module.named_modules()]


def _uniform_dtype(module: nn.Module) -> torch.dtype | None:
    """The one dtype of all floating-point tensors; None where there are several, none, or complex ones."""
    tensors = tensors_of(module)
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if any(tensor.is_complex() for tensor in tensors) or len(dtypes) != 1:
        return None
    return dtypes.pop()


def _repeated(items: list[ast.expr]) -> ast.ListComp:
    """[item for _ in range(n)]."""
    count = ast.Call(_name("range"), [ast.Constant(len(items))], [])
    return ast.ListComp(items[0], [ast.comprehension(ast.Name("_", ast.Store()), count, [], 0)])


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())
