"""What a generated file needs from elsewhere: imports by name, and the source of graphgrow's own live modules."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import math
import sys
import types
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.errors import ExportError
from graphgrow.source.layout import one_line

PACKAGES = ("torch", "torchvision", "timm", "transformers")
"""What a generated file may import, the standard library and safetensors aside."""

_INLINED = ("graphgrow.layers", "graphgrow.errors")  # written into the file

_SHORT: tuple[tuple[str, types.ModuleType], ...] = (("nn", nn), ("torch", torch), ("F", F))
_SHORT_FROM = {"nn": "torch", "F": "torch.nn"}
_OPERATOR_NAMESPACES = ("aten", "prim", "prims")


class Imports:
    """Collects what the code of one generated file refers to.

    Attributes:
        sources: by name, the source of what is written into the file instead of being imported.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self._plain: dict[str, str] = {}
        self._from: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._origin: dict[str, Any] = {}

    @property
    def bound(self) -> set[str]:
        """Every name that the imports and sources bind."""
        return {*self._origin, *self.sources}

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages imported beside torch and the standard library."""
        modules = {*self._plain.values(), *self._from}
        return tuple(sorted({name.partition(".")[0] for name in modules} & set(PACKAGES) - {"torch"}))

    def add(self, module: str, name: str | None = None, alias: str | None = None) -> str:
        """Import a module, or a name from it; returns the name that it is bound to.

        Raises:
            ExportError: if the name is taken by something else.
        """
        bound = alias or name or module
        origin = (module, name)
        if self._origin.setdefault(bound, origin) != origin or bound in self.sources:
            raise ExportError(
                f"two things are called {bound!r} in the generated file, {module}.{name or ''} among them; rename one"
            )
        if name is None:
            self._plain[bound] = module
        else:
            self._from[module].add((name, bound))
        return bound

    def lines(self) -> list[str]:
        """The import statements, sorted: the standard library, then the rest."""
        blocks = []
        for standard in (True, False):
            plain = [
                f"import {module}" if bound == module else f"import {module} as {bound}"
                for bound, module in sorted(self._plain.items())
                if _is_standard(module) == standard
            ]
            named = [
                f"from {module} import " + ", ".join(sorted(n if n == b else f"{n} as {b}" for n, b in pairs))
                for module, pairs in sorted(self._from.items())
                if _is_standard(module) == standard
            ]
            if plain or named:
                blocks.append("\n".join(plain + named))
        return "\n\n".join(blocks).splitlines()

    def reference(self, thing: Any) -> ast.expr:
        """The expression that names a class, function or module in the generated file.

        Raises:
            ExportError: if it belongs to none of the `PACKAGES`, or cannot be found by its own name.
        """
        if isinstance(thing, types.ModuleType):
            return _dotted(self._module(thing))
        name = str(getattr(thing, "__name__", ""))
        for short, module in _SHORT:
            if name and getattr(module, name, None) is thing:
                self._short(short)
                return _dotted(f"{short}.{name}")
        home = str(getattr(thing, "__module__", None) or "")
        if vars(builtins).get(name) is thing:
            return _dotted(name)
        if home.startswith(_INLINED):
            return _dotted(self._inline(thing))
        home = {"_operator": "operator"}.get(home, home)
        self._check(thing, home, name)
        if _is_standard(home):
            return _dotted(f"{self.add(home)}.{name}")
        return _dotted(self.add(home, name))

    def torch_name(self, parts: list[str]) -> ast.expr:
        """The expression for a dotted name below torch, by its public name where it has one.

        Raises:
            ExportError: if it is an operator that a package of the user's registered.
        """
        if parts[:1] == ["ops"] and (len(parts) < 2 or parts[1] not in _OPERATOR_NAMESPACES):
            raise ExportError(
                f"the graph calls torch.{'.'.join(parts)}, which torch alone does not have; replace it by torch's own "
                "operators before gg.trace"
            )
        thing: Any = torch
        for part in parts:
            thing = getattr(thing, part)
        for short, module in _SHORT if len(parts) > 1 else ():
            if getattr(module, parts[-1], None) is thing:
                self._short(short)
                return _dotted(f"{short}.{parts[-1]}")
        self.add("torch")
        return _dotted(".".join(["torch", *parts]))

    def literal(self, value: Any) -> ast.expr:
        """The expression that makes a plain value: numbers, strings, containers, dtypes, devices, torch's functions.

        Raises:
            ExportError: if the value is something else.
        """
        if value is None or isinstance(value, (bool, int, str)) or value is Ellipsis:
            return ast.Constant(value)
        if isinstance(value, float):
            return ast.Constant(value) if math.isfinite(value) else _call("float", ast.Constant(str(value)))
        if isinstance(value, torch.device):
            return _call("torch.device", ast.Constant(str(value)))
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return _dotted(str(value))
        if type(value) in (tuple, torch.Size):
            return ast.Tuple([self.literal(item) for item in value], ast.Load())
        if type(value) is list:
            return ast.List([self.literal(item) for item in value], ast.Load())
        if type(value) is dict:
            return ast.Dict([self.literal(key) for key in value], [self.literal(item) for item in value.values()])
        if isinstance(value, type) or callable(value):
            return self.reference(value)
        raise ExportError(f"a value of type {type(value).__name__} cannot be written as Python: {value!r:.80}")

    def _short(self, short: str) -> None:
        if short == "torch":
            self.add("torch")
        else:
            self.add(_SHORT_FROM[short], "functional" if short == "F" else short, short)

    def _module(self, module: types.ModuleType) -> str:
        for short, known in _SHORT:
            if module is known:
                self._short(short)
                return short
        root = module.__name__.partition(".")[0]
        if root not in PACKAGES and not _is_standard(root):
            raise ExportError(f"the graph uses the module {module.__name__!r}, which a plain file cannot; {_REMEDY}")
        package, _, name = module.__name__.rpartition(".")
        return self.add(package, name) if package else self.add(name)

    def _check(self, thing: Any, home: str, name: str) -> None:
        """Refuse what a file that runs with torch alone could not import."""
        root = home.partition(".")[0]
        if root not in PACKAGES and not _is_standard(root):
            what = f"{home}.{name}" if name else repr(thing)[:80]
            raise ExportError(f"{what} belongs neither to {', '.join(PACKAGES)} nor to the standard library; {_REMEDY}")
        if not name or getattr(importlib.import_module(home), name, None) is not thing:
            raise ExportError(f"{home}.{name} cannot be imported by that name; {_REMEDY}")

    def _inline(self, thing: Any) -> str:
        """Take over the source of something in graphgrow.layers or .errors, after all that it refers to."""
        name: str = thing.__name__
        known = vars(sys.modules[thing.__module__])
        if name in self.sources:
            return name
        source = inspect.getsource(thing)
        loaded = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        for used in sorted(loaded & set(known) - {name}):
            self._bind(used, known[used])
        self.sources[name] = source
        return name

    def _bind(self, name: str, value: Any) -> None:
        """Give a name that an inlined source uses the meaning that it has there."""
        home = getattr(value, "__module__", None)
        if isinstance(value, types.ModuleType):
            package, _, last = value.__name__.rpartition(".")
            self.add(package, last, name) if package else self.add(last)
        elif home is None:
            self.sources[name] = f"{name} = {one_line(self.literal(value))}\n"
        elif home.startswith(_INLINED):
            self._inline(value)
        else:
            self._check(value, home, name)
            self.add(home, name)


_REMEDY = (
    "a plain file can use torch, torchvision, timm and transformers only: trace without `leaves`, so that its inside "
    "becomes torch's operators, or replace it before gg.trace; gg.save keeps any model"
)


def _dotted(name: str) -> ast.expr:
    return ast.parse(name, mode="eval").body


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(_dotted(name), list(arguments), [])


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names
