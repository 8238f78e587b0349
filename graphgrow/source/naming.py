"""Names for the values of a graph, as few as a person would use.

fx writes one assignment for each node and sets each value to None behind its last use. Here a result takes over the
name of a value that ends with it, so that `x` runs through the network and its memory is freed all the same.
"""

from __future__ import annotations

import ast
import builtins
import copy
import keyword
import re
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

from graphgrow.source.layout import layout, one_line

_STREAMS = ("x", "y", "z")
_SIZES = {"size", "dim", "ndimension", "numel", "stride", "element_size"}  # methods that return no tensor
_MARK = "%"


def of_graph(name: str) -> str:
    """The name of a value of the graph while it has none in the text: one that no Python has."""
    return _MARK + name


@dataclass
class Statement:
    """One step: what it computes, and the graph's name of the result, None where it only acts or returns."""

    target: str | None
    node: ast.expr | ast.stmt

    def reads(self) -> list[str]:
        """The values read, in order, repeated ones too."""
        names = [node.id for node in ast.walk(self.node) if isinstance(node, ast.Name)]
        return [name for name in names if name.startswith(_MARK)]


class Namer:
    """Gives each value the name that it has in the text: that of a value which ends there, or a free one.

    Args:
        statements: all of them, with the values under the names of `of_graph`.
        inputs: the parameters of the function.
        reserved: names that mean something else.
    """

    def __init__(self, statements: Sequence[Statement], inputs: Sequence[str], reserved: Set[str]) -> None:
        self._last = {name: place for place, one in enumerate(statements) for name in one.reads()}
        self._indexed = _only_indexed(statements)
        self._names: dict[str, str] = {of_graph(name): name for name in inputs}
        self._age: dict[str, int] = dict.fromkeys(inputs, 0)
        self._tensors = {of_graph(name) for name in inputs}
        self._tuples: set[str] = set()
        self._shapes: set[str] = set()
        self._reserved = set(reserved) | ({*inputs} - set(_STREAMS))
        self._place = -1

    def lines(self, statement: Statement, indent: int) -> list[str]:
        """The next statement in its final names."""
        self._place += 1
        node = _Rename(self._names).visit(copy.deepcopy(statement.node))
        start, target = " " * indent, statement.target
        if isinstance(node, ast.Return) and node.value is not None:
            return [f"{start}return " + layout(node.value, indent, len("return "))]
        if isinstance(node, ast.stmt):
            return [start + one_line(node)]
        if target is None or target not in self._last:
            return [start + layout(node, indent)]
        name = self._choose(target, statement, node)
        for other in [other for other, used in self._names.items() if used == name]:
            del self._names[other]
        self._names[target] = name
        self._age.setdefault(name, self._place)
        return [f"{start}{name} = " + layout(node, indent, len(f"{name} = "))]

    def _choose(self, target: str, statement: Statement, node: ast.expr) -> str:
        """The name of a result; `node` is the statement in the final names of what it reads."""
        reads, before = statement.reads(), statement.node
        calls_torch = isinstance(node, ast.Call) and not isinstance(node.func, ast.Name)
        if is_fetch(node) or _is_size(node):
            self._shapes.add(target)
            return self._free(_item_name(node))
        if target in self._indexed:
            self._tuples |= {target} if calls_torch else set()
            return self._free(_base(node, target))
        if (
            isinstance(before, ast.Subscript)
            and isinstance(before.value, ast.Name)
            and _number(before.slice) is not None
        ):
            self._tensors |= {target} if before.value.id in self._tensors | self._tuples else set()
            return self._free("size" + _suffix(before.slice) if before.value.id in self._shapes else _item_name(node))
        if not calls_torch and not self._tensors & set(reads) and not _reads_module(node):
            return self._free(_base(node, target))
        self._tensors.add(target)
        ending = [name for name in reads if self._last[name] == self._place and name in self._tensors]
        heirs = [self._names[name] for name in ending if self._names[name] not in self._reserved]
        if heirs:
            return min(heirs, key=lambda name: self._age[name])
        return self._free(next(filter(self._is_free, _STREAMS), _base(node, target)))

    def _is_free(self, name: str) -> bool:
        if name in self._reserved or keyword.iskeyword(name) or hasattr(builtins, name):
            return False
        return all(self._last.get(other, -1) <= self._place for other, used in self._names.items() if used == name)

    def _free(self, base: str) -> str:
        """A name that means nothing else from here on."""
        name, count = base, 2
        while not self._is_free(name):
            name, count = f"{base}_{count}", count + 1
        self._age.pop(name, None)
        return name


def is_fetch(node: ast.AST) -> bool:
    """Whether an expression only looks something up: a path into the module, an attribute, an item of one."""
    if is_module_path(node):
        return True
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name)
    if not isinstance(node, ast.Subscript) or _number(node.slice) is None:
        return False
    return isinstance(node.value, ast.Attribute) and is_fetch(node.value)


def is_idle(node: ast.AST) -> bool:
    """Whether an expression does nothing but compute its value: arithmetic, comparisons, items, sizes."""
    calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
    return isinstance(node, ast.expr) and all(_is_size(one) for one in calls)


def is_module_path(node: ast.AST) -> bool:
    """Whether an expression is a path that starts at self."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant):
            return False
        if isinstance(node, ast.Call):
            if not (isinstance(node.func, ast.Name) and node.func.id == "getattr"):
                return False
            node = node.args[0]
        else:
            node = node.value
    return isinstance(node, ast.Name) and node.id == "self"


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:  # named by ast
        return ast.Name(self._names.get(node.id, node.id), node.ctx)


def _only_indexed(statements: Sequence[Statement]) -> set[str]:
    """Values of which only single items are ever read: tuples."""
    indexed: set[str] = set()
    other: set[str] = set()
    for statement in statements:
        bases = [
            node.value.id
            for node in ast.walk(statement.node)
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and _number(node.slice) is not None
        ]
        indexed |= set(bases)
        other |= set(Counter(statement.reads()) - Counter(bases))
    return indexed - other


def _number(node: ast.expr) -> int | None:
    """The number that an index is, if it is one."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _number(node.operand)
        return None if number is None else -number
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _is_size(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SIZES


def _reads_module(node: ast.expr) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "self" for one in ast.walk(node))


def _item_name(node: ast.expr) -> str:
    """size_1 for x.shape[1] and x.size(1), chunk_0 for chunk[0], shape for x.shape."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr + (_suffix(node.args[0]) if len(node.args) == 1 else "")
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
        return ("size" if node.value.attr == "shape" else node.value.attr) + _suffix(node.slice)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        return node.value.id.rstrip("_") + _suffix(node.slice)
    return node.attr if isinstance(node, ast.Attribute) else "item"


def _suffix(index: ast.expr) -> str:
    """_0, _1, ... for the first items; _last, _last_2, ... for those counted from the end."""
    number = _number(index)
    if number is None:
        return ""
    if number >= 0:
        return f"_{number}"
    return "_last" if number == -1 else f"_last_{-number}"


def _base(node: ast.expr, target: str) -> str:
    """A name that says how a value came about: the last word of what is called."""
    function = node.func if isinstance(node, ast.Call) else None
    while isinstance(function, ast.Subscript):
        function = function.value
    name = function.attr if isinstance(function, ast.Attribute) else re.sub(r"(_\d+)+$", "", target.lstrip(_MARK))
    return f"{name}_" if hasattr(builtins, name) or keyword.iskeyword(name) else name
