"""Python expressions as text, broken over lines where they are too long: what a formatter would make of them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Sequence

WIDTH = 120
_STEP = 4
_SIMPLE_POWER = re.compile(r"((?<![\w.])[\w.]+) \*\* ([\w.]+(?![\w.(\[]))")


def layout(expression: ast.expr, indent: int, before: int = 0, after: int = 0) -> str:
    """An expression as text, of several lines where one would be longer than `WIDTH`.

    Calls, lists, tuples, dictionaries and subscripts break at their brackets, first around all items, then at each.

    Args:
        expression: what is written.
        indent: columns by which the statement is indented.
        before: columns in use to the left of the expression, the indentation aside.
        after: columns that are needed behind its last character.
    """
    flat = one_line(expression)
    if indent + before + len(flat) + after <= WIDTH:
        return flat
    parts = _parts(expression)
    if parts is None:
        return flat
    opening, items, closing = parts
    inner, outer = " " * (indent + _STEP), " " * indent
    if isinstance(expression, ast.ListComp):
        rows = [_item(*items[0], indent + _STEP, 0), *(_loop(one) for one in expression.generators)]
        return "\n".join([opening, *(inner + row for row in rows), outer + closing])
    together = ", ".join(prefix + one_line(item) for prefix, item in items)
    if len(inner) + len(together) <= WIDTH:
        return f"{opening}\n{inner}{together}\n{outer}{closing}"
    comma = "," if len(items) > 1 else ""
    rows = [inner + _item(prefix, item, indent + _STEP, len(comma)) + comma for prefix, item in items]
    return "\n".join([opening, *rows, outer + closing])


def one_line(node: ast.AST) -> str:
    """A piece of Python on one line, strings in double quotes."""
    text = ast.unparse(ast.fix_missing_locations(node))
    if "'" not in text:
        return _SIMPLE_POWER.sub(r"\1**\2", text)
    result, column = "", 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING and token.start[0] == 1:
            result += text[column : token.start[1]] + _double(token.string)
            column = token.end[1]
    return result + text[column:]


def _item(prefix: str, item: ast.expr, indent: int, after: int) -> str:
    return prefix + layout(item, indent, len(prefix), after)


def _parts(expression: ast.expr) -> tuple[str, Sequence[tuple[str, ast.expr]], str] | None:
    """Opening bracket, items with what stands before each, and closing bracket; None where nothing can break."""
    if isinstance(expression, ast.Call) and (expression.args or expression.keywords):
        items = [("", argument) for argument in expression.args]
        items += [(f"{one.arg}=" if one.arg else "**", one.value) for one in expression.keywords]
        return one_line(expression.func) + "(", items, ")"
    if isinstance(expression, ast.List) and expression.elts:
        return "[", [("", item) for item in expression.elts], "]"
    if isinstance(expression, ast.ListComp):
        return "[", [("", expression.elt)], "]"
    if isinstance(expression, ast.Subscript):
        indices = [expression.slice]
        if isinstance(expression.slice, ast.Tuple) and len(expression.slice.elts) > 1:
            indices = expression.slice.elts
        return one_line(expression.value) + "[", [("", index) for index in indices], "]"
    if isinstance(expression, ast.Tuple) and len(expression.elts) > 1:
        return "(", [("", item) for item in expression.elts], ")"
    if isinstance(expression, ast.Dict) and expression.keys:
        pairs = zip(expression.keys, expression.values, strict=True)
        return "{", [(f"{one_line(key)}: " if key else "**", value) for key, value in pairs], "}"
    return None


def _loop(generator: ast.comprehension) -> str:
    return f"for {one_line(generator.target)} in {one_line(generator.iter)}"


def _double(literal: str) -> str:
    """A string literal in double quotes, where that needs no escapes."""
    if literal.startswith("'") and not {'"', "\\"} & set(literal) and not literal.startswith("'''"):
        return f'"{literal[1:-1]}"'
    return literal
