"""Write docs/api.md from the signatures and docstrings of the public surface.

python tools/api_page.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import graphgrow as gg
from graphgrow.rewrite.contract import render
from graphgrow.rewrite.registry import passes

WIDTH = 100
_MEANINGS = {
    "N": "Graph",
    "Network": "Graph",
    "Exportable": "Graph",
    "P": "type[Mutation]",
    "Mutations": "Mutation | str | Iterable[Mutation | str]",
    "Leaves": "Sequence[type[Module] | str]",
    "Arrays": "Mapping[str, NDArray]",
    "Sizes": "Sequence[tuple[int, ...] | Sequence[tuple[int, ...]]]",
    "Example": "Callable[[Draw], Sequence[Any]]",
    "Start": "Callable[[Mapping[str, Any], Tensor], dict[str, Any]]",
}
"""What the names stand for that signatures use within the sources."""
PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
_HEAD = """# API

`import graphgrow as gg`. Written by `python tools/api_page.py` from the docstrings. A graph is a value: everything that
changes one returns another.
"""


def page() -> str:
    """The whole page."""
    functions = [name for name in gg.__all__ if inspect.isfunction(getattr(gg, name))]
    classes = [name for name in gg.__all__ if inspect.isclass(getattr(gg, name))]
    errors = [name for name in classes if issubclass(getattr(gg, name), Exception)]
    parts = [_HEAD, _index("call", functions), _index("class", [name for name in classes if name not in errors])]
    parts.append("## Functions\n")
    parts += [_function(f"gg.{name}", getattr(gg, name)) for name in functions]
    parts.append("## Classes\n")
    parts += [_class(name, getattr(gg, name)) for name in classes if name not in errors]
    parts.append("## Passes\n\nAs text: `pass(site, option=value)`. `graph.mutations(pass)` lists what applies.\n")
    parts += [_pass(name, kind) for name, kind in passes().items()]
    parts.append("## Errors\n\n| error | raised when |\n|---|---|")
    parts += [f"| `{name}` | {_first_line(getattr(gg, name))} |" for name in errors]
    return "\n".join(parts) + "\n"


def _index(what: str, names: list[str]) -> str:
    """A table with a line for each name, which leads to it."""
    rows = [f"| [`gg.{name}`](#gg{name.lower()}) | {_first_line(getattr(gg, name))} |" for name in names]
    return "\n".join([f"| {what} | |", "|---|---|", *rows]) + "\n"


def _function(name: str, function: Any) -> str:
    parameters = _parameters(function)
    result = _plain(inspect.signature(function).return_annotation)
    one_line = f"{name}({', '.join(parameters)}) -> {result}"
    shown = (
        one_line
        if len(one_line) <= WIDTH
        else f"{name}(\n    {(',' + chr(10) + '    ').join(parameters)},\n) -> {result}"
    )
    return f"### {name}\n\n```text\n{shown}\n```\n\n{_text(function)}\n"


def _parameters(function: Any) -> list[str]:
    """The parameters as in the source, without `self` and without the modules of the types."""
    signature = inspect.signature(function)
    keyword = {name for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    shown: list[str] = []
    for name, parameter in signature.parameters.items():
        if name in keyword and "*" not in shown:
            shown.append("*")
        if name not in ("self", "cls"):
            shown.append(_parameter(parameter))
    return shown


def _parameter(parameter: inspect.Parameter) -> str:
    """`*name: type = default`, with the default as it is written."""
    stars = "*" * ((parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD))
    typed = "" if parameter.annotation is parameter.empty else f": {_plain(parameter.annotation)}"
    default = "" if parameter.default is parameter.empty else f"{' = ' if typed else '='}{parameter.default!r}"
    return f"{stars}{parameter.name}{typed}{default}"


def _plain(annotation: Any) -> str:
    """A type without the modules of its names, and aliases by what they mean."""
    text = re.sub(r"\b(?:[a-z_]+\.)+([A-Z])", r"\1", str(annotation)).strip("'")
    return re.sub(r"(?<![\w\"'])(" + "|".join(_MEANINGS) + r")(?![\w\"'])", lambda found: _MEANINGS[found[1]], text)


def _class(name: str, kind: type) -> str:
    own = [base for base in kind.__mro__ if base.__module__.startswith("graphgrow")]
    parts = [f"### gg.{name}\n", *(f"{_text(base)}\n" for base in own)]
    members: dict[str, Any] = {}
    for base in own:
        members = {**vars(base), **members}
    parts += [line for member, value in members.items() if (line := _member(name, member, value))]
    return "\n".join(parts) + "\n"


def _member(owner: str, name: str, value: Any) -> str:
    if name.startswith("_") or not getattr(value, "__doc__", None):
        return ""
    if isinstance(value, (property, cached_property)):
        return f"- `{name}`: {_first_line(value)}"
    if isinstance(value, (classmethod, staticmethod)):
        return f"- `{owner}.{name}({', '.join(_parameters(value.__func__))})`: {_first_line(value.__func__)}"
    return f"- `{name}({', '.join(_parameters(value))})`: {_first_line(value)}" if inspect.isfunction(value) else ""


def _pass(name: str, kind: type) -> str:
    first, *others = dataclasses.fields(kind)
    options = [f.name if f.default is dataclasses.MISSING else f"{f.name}={render(f.default)}" for f in others]
    return f"### {name}\n\n```text\n{name}({', '.join([first.name, *options])})\n```\n\n{_text(kind)}\n"


def _text(item: Any) -> str:
    """A docstring as Markdown: its sections as lists."""
    lines: list[str] = []
    inside = False
    for line in inspect.cleandoc(item.__doc__ or "").splitlines():
        title = re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line)
        if title:
            inside = True
            lines.append(f"*{title[1]}*\n")
        elif inside and (entry := re.fullmatch(r"    (\S[^:]*): (.*)", line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif inside and line.strip():
            lines.append(f"  {line.strip()}" if lines and lines[-1].startswith(("- ", "  ")) else line.strip())
        else:
            inside = inside and not line.strip()
            lines.append(line)
    return "\n".join(lines)


def _first_line(item: Any) -> str:
    return inspect.cleandoc(item.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
