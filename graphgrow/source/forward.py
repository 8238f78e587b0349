"""A graph's code as the `forward` that a person would write: paths into modules, few names, no clean-up."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

import torch
from torch.fx.graph import CodeGen

from graphgrow.errors import ExportError
from graphgrow.layers import set_item
from graphgrow.source.imports import Imports
from graphgrow.source.layout import WIDTH, one_line
from graphgrow.source.naming import Namer, Statement, is_fetch, is_idle, is_module_path, of_graph
from graphgrow.source.tree import Tree

_INDENT = 8


def forward_lines(tree: Tree, imports: Imports, tensors: Set[str], taken: Set[str]) -> list[str]:
    """The lines of a `forward` method that does what the graph does, indented for a class body.

    Args:
        tree: of a graph module.
        imports: takes what the code refers to.
        tensors: parameters of the forward that are tensors, for their annotations.
        taken: names that the file binds beside the imports, which no variable may hide.

    Raises:
        ExportError: if the graph calls what a plain file cannot import, or has a code generator of its own.
    """
    graph = tree.root.graph
    if type(graph._codegen) is not CodeGen:
        raise ExportError(
            f"the graph has a code generator of its own ({type(graph._codegen).__name__}), which no plain forward can "
            "follow; trace the model with gg.trace"
        )
    code = graph.python_code("self")
    try:
        parsed = ast.parse(code.src)
    except SyntaxError as error:
        line = (error.text or str(error)).strip()
        raise ExportError(f"the graph holds a value that is no Python: {line}; trace it anew") from error
    function = next(node for node in parsed.body if isinstance(node, ast.FunctionDef))
    inputs = [one.arg for one in [*function.args.args, *function.args.kwonlyargs]][1:]
    inputs += [one.arg for one in (function.args.vararg, function.args.kwarg) if one]
    values = {*inputs} | {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    rewriter = _Rewriter(tree, imports, code.globals, values)
    written = _assigned(function.body, code.globals)
    body = _alive(_inlined(_statements([rewriter.visit(statement) for statement in written])))
    header = _header(function, rewriter, tensors)
    namer = Namer(body, inputs, imports.bound | taken | {"self"})
    return [*header, *(line for statement in body for line in namer.lines(statement, _INDENT))]


class _Rewriter(ast.NodeTransformer):
    """Turns fx's spelling into the usual one: module paths, torch's public names, slices, imported names.

    The values of the graph get names that no Python has, so that nothing is mistaken for them.
    """

    def __init__(self, tree: Tree, imports: Imports, names: Mapping[str, Any], values: Set[str]) -> None:
        self._tree = tree
        self._imports = imports
        self._globals = names
        self._values = values

    def visit(self, node: ast.AST) -> Any:
        """Rewrite a node and all below it."""
        path = _path(node, "self") if isinstance(node, ast.expr) else None
        if path:
            return self._tree.access(path)
        dotted = _path(node, "torch") if isinstance(node, ast.expr) and "torch" not in self._values else None
        if dotted:
            return self._imports.torch_name(dotted)
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:  # named by ast
        """A global that fx made up is called what it is."""
        if node.id in self._values:
            return ast.Name(of_graph(node.id), node.ctx)
        if node.id == "Ellipsis":
            return ast.Constant(...)
        if node.id not in self._globals:
            return node
        value = self._globals[node.id]
        return self._imports.literal(value) if isinstance(value, float) else self._imports.reference(value)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """device(type='cuda', index=0) becomes torch.device("cuda:0")."""
        if _is_call_of(node, "device") and "device" not in self._values:
            parts = [str(ast.literal_eval(one.value)) for one in node.keywords]
            return ast.Call(self._imports.torch_name(["device"]), [ast.Constant(":".join(parts))], [])
        dotted = _path(node.func, "torch") if "torch" not in self._values else None
        if dotted:
            node.keywords = _without_defaults(node.keywords, dotted)
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """x[slice(None, n, None)] becomes x[:n]."""
        self.generic_visit(node)
        if isinstance(node.slice, ast.Tuple):
            node.slice.elts = [_as_slice(item) for item in node.slice.elts]
        else:
            node.slice = _as_slice(node.slice)
        return node


def _path(node: ast.expr, root: str) -> list[str] | None:
    """The attributes that lead from the name `root` to an expression; None if it is no such chain."""
    if isinstance(node, ast.Name):
        return [] if node.id == root else None
    if isinstance(node, ast.Attribute):
        before = _path(node.value, root)
        return None if before is None else [*before, node.attr]
    if isinstance(node, ast.Call) and _is_call_of(node, "getattr") and len(node.args) == 2:
        holder, name = node.args
        before = _path(holder, root)
        if before is not None and isinstance(name, ast.Constant) and isinstance(name.value, str):
            return [*before, name.value]
    return None


def _is_call_of(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _without_defaults(keywords: list[ast.keyword], dotted: list[str]) -> list[ast.keyword]:
    """The keyword arguments of a function of torch that are not its defaults, as far as its signature tells."""
    try:
        function: Any = functools.reduce(getattr, dotted, torch)
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # a function written in C++ has none
        return keywords

    def is_default(one: ast.keyword) -> bool:
        known = parameters.get(str(one.arg))
        if known is None or not isinstance(one.value, ast.Constant):
            return False
        return type(known.default) is type(one.value.value) and bool(known.default == one.value.value)

    return [one for one in keywords if not is_default(one)]


def _as_slice(node: ast.expr) -> ast.expr:
    if not isinstance(node, ast.Call) or not _is_call_of(node, "slice") or len(node.args) != 3:
        return node
    return ast.Slice(*(None if isinstance(one, ast.Constant) and one.value is None else one for one in node.args))


def _header(function: ast.FunctionDef, rewriter: _Rewriter, tensors: Set[str]) -> list[str]:
    """The `def` line, or lines; annotations say which inputs are tensors, and what fx knows of the output."""
    arguments = function.args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + [*map(rewriter.visit, arguments.defaults)]
    tensor = one_line(rewriter.visit(ast.parse("torch.Tensor", mode="eval").body))
    written = []
    for argument, default in zip(arguments.args, defaults, strict=True):
        annotation = f": {tensor}" if argument.arg in tensors else ""
        equals = " = " if annotation else "="
        written.append(argument.arg + annotation + ("" if default is None else equals + one_line(default)))
    written += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    written += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    known = function.returns is not None and one_line(function.returns) in ("_torch_Tensor_", "torch.Tensor")
    behind = f") -> {tensor}:" if known else "):"
    flat = f"    def forward({', '.join(written)}{behind}"
    if len(flat) <= WIDTH:
        return [flat]
    return ["    def forward(", *(" " * _INDENT + one + "," for one in written), "    " + behind]


def _assigned(body: list[ast.stmt], names: Mapping[str, Any]) -> list[ast.stmt]:
    """The statements with `y = set_item(x, index, value)` as what it does: `x[index] = value`, and y is x."""
    found: list[ast.stmt] = []
    for statement in body:
        called = (
            statement.value if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call) else None
        )
        if called and isinstance(called.func, ast.Name) and names.get(called.func.id) is set_item:
            tensor, index, value = called.args
            found.append(ast.copy_location(ast.Assign([ast.Subscript(tensor, index, ast.Store())], value), statement))
            assert isinstance(statement, ast.Assign)
            statement = ast.copy_location(ast.Assign(statement.targets, copy.deepcopy(tensor)), statement)
        found.append(statement)
    return found


def _statements(body: list[ast.stmt]) -> list[Statement]:
    """The statements of fx's code, without those that forget values."""
    found = []
    for statement in body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            forgets = isinstance(statement.value, ast.Constant) and statement.value.value is None
            if not forgets:
                found.append(Statement(statement.targets[0].id, statement.value))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found.append(Statement(statement.target.id, statement.value))
        else:
            found.append(Statement(None, statement))
    return found


def _inlined(statements: list[Statement]) -> list[Statement]:
    """What has a name already is called by it: parameters, aliases, attributes that the next statement alone reads."""
    uses = Counter(name for statement in statements for name in statement.reads())
    known: dict[str, ast.expr] = {}
    kept: list[Statement] = []
    for position, statement in enumerate(statements):
        target, node = statement.target, _Substitute(known).visit(statement.node)
        following = statements[position + 1].reads() if position + 1 < len(statements) else []
        once = isinstance(node, ast.Attribute) and uses[str(target)] == 1 and target in following
        if target is not None and (isinstance(node, ast.Name) or is_module_path(node) or (once and is_fetch(node))):
            known[target] = node
        else:
            kept.append(Statement(target, node))
    return kept


def _alive(statements: list[Statement]) -> list[Statement]:
    """The statements without plain arithmetic that nothing reads any more."""
    kept: list[Statement] = []
    read: set[str] = set()
    for statement in reversed(statements):
        if statement.target is None or statement.target in read or not is_idle(statement.node):
            kept.append(statement)
            read.update(statement.reads())
    return kept[::-1]


class _Substitute(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, known: Mapping[str, ast.expr]) -> None:
        self._known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The expression of that name, if it is known."""
        return copy.deepcopy(self._known.get(node.id, node))
