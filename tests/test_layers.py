"""Who may import whom: the layers of docs/architecture.md, held against every import of the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SURFACE = "graphgrow"
FOLDERS = {"graphgrow": "graphgrow", "graphgrow.passes": "passes", "graphgrow.models": "models"}

# Layer -> the layers it may import beside itself. "root" is graphgrow/__init__.py, the public surface.
LOWEST = ("errors", "records")
CORE = ("errors", "records", "ir", "layers", "blocks", "ops", "capture", "network", "planning", "rewrite")
ALLOWED: dict[str, tuple[str, ...]] = {
    "errors": (),
    "records": ("errors",),
    "recipes": LOWEST,
    "models": (),
    "ir": LOWEST,
    "layers": ("errors",),
    "blocks": ("layers",),
    "ops": (*LOWEST, "ir", "layers"),
    "rules": (*LOWEST, "ir", "layers", "ops"),
    "capture": (*LOWEST, "ir", "layers", "ops"),
    "network": (*LOWEST, "ir", "layers", "ops", "capture"),
    "planning": (*LOWEST, "ir", "layers", "ops"),
    "rewrite": (*LOWEST, "ir", "layers", "blocks", "ops", "capture", "network", "planning"),
    "passes": ("errors", "ir", "layers", "blocks", "ops", "network", "planning", "rewrite"),
    "own_passes": ("errors", "ir", "layers", "blocks", "ops", "network", "planning", "rewrite"),
    "graph": CORE,
    "signals": CORE,
    "store": (*CORE, "graph", "models"),
    "verification": (*CORE, "graph"),
    "rulecheck": (*CORE, "graph", "rules"),
    "bulk": (*CORE, "graph", "verification"),
    "export": (*CORE, "passes", "store", "models", "graph", "verification"),
    "pretrained": CORE,
    "own_class": (*CORE, "pretrained"),
    "source": (*CORE, "verification", "export"),
    "bench": (*CORE, "passes", "store", "models", "graph", "verification"),
    "stage": (*CORE, "passes", "store", "models", "graph", "verification", "export", "bench"),
    "data": (*LOWEST, "store", "models", *CORE, "graph"),
    "report": LOWEST,
}
ALLOWED["train"] = (*ALLOWED["stage"], "stage", "signals", "data", "recipes", "report")
ALLOWED["callbacks"] = (*ALLOWED["train"], "train")
ALLOWED["demo"] = (*ALLOWED["stage"], "stage", "data", "report", "train", "root")
ALLOWED["search"] = (*ALLOWED["train"], "train", "bulk", "demo")
ALLOWED["cli"] = (*ALLOWED["search"], "search", "root")
ALLOWED["root"] = tuple(ALLOWED)

# In a layer of several packages: each of them, or a file beside them, -> those that it may import beside itself.
WITHIN: dict[str, dict[str, tuple[str, ...]]] = {
    "capture": {
        "model": (),
        "graphs": ("model",),
        "stand_ins": ("model", "graphs"),
        "tracing": ("model", "graphs", "stand_ins"),
        "dynamo": ("model", "graphs", "stand_ins"),
        "trace": ("model", "graphs", "stand_ins", "tracing", "dynamo"),
    }
}

# What a layer may import from outside of the project, where that is restricted (standard library aside).
OUTSIDE = {"models": {"torch"}, "layers": {"torch"}, "blocks": {"torch"}, "ir": {"torch"}}


class Import(NamedTuple):
    """One import: the module that imports, what it names, and in which line."""

    importer: str
    imported: str
    line: int


def module_files(root: Path) -> dict[str, Path]:
    """Dotted name of each module -> its file."""
    files = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [part for part in path.relative_to(root / folder).with_suffix("").parts if part != "__init__"]
            files[".".join([package, *parts])] = path
    return files


def imports_of(module: str, source: str, is_package: bool, modules: set[str]) -> Iterator[Import]:
    """Every import of a module, in functions and for type checkers too; `from package import submodule` names that."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        if not isinstance(node, ast.ImportFrom):
            continue
        origin = node.module or ""
        if node.level:
            base = package.split(".")
            base = base[: len(base) - node.level + 1]
            origin = ".".join([*base, origin] if origin else base)
        for alias in node.names:
            full = f"{origin}.{alias.name}"
            yield Import(module, full if full in modules else origin, node.lineno)


def all_imports(root: Path) -> list[Import]:
    files = module_files(root)
    return [
        found
        for module, path in files.items()
        for found in imports_of(module, path.read_text(encoding="utf-8"), path.name == "__init__.py", set(files))
    ]


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "root"


def part_of(module: str) -> str:
    """The package within a layer, or the file beside its packages."""
    return [*module.split("."), "", ""][2]


def layer_faults(imports: list[Import]) -> list[str]:
    """One line for each import that the table does not allow."""
    faults = []
    for found in imports:
        layer = layer_of(found.importer)
        where = f"{found.importer}:{found.line} imports {found.imported}"
        top = found.imported.partition(".")[0]
        if layer not in ALLOWED:
            faults.append(f"{where}, but the layer {layer!r} is not in the table; add it to ALLOWED")
        elif top == "graphgrow":
            wanted = layer_of(found.imported)
            if wanted != layer and wanted not in ALLOWED[layer]:
                faults.append(f"{where}, but {layer} may import only {', '.join(ALLOWED[layer]) or 'itself'}")
            elif wanted == layer in WITHIN:
                part, other = part_of(found.importer), part_of(found.imported)
                parts = WITHIN[layer].get(part)
                if parts is None:
                    faults.append(f"{where}, but {part!r} is not in the table of {layer}; add it to WITHIN")
                elif other != part and other not in parts:
                    faults.append(f"{where}, but {layer}.{part} may import only {', '.join(parts) or 'itself'} of it")
        elif layer in OUTSIDE and top not in OUTSIDE[layer] and not is_standard(top):
            faults.append(f"{where}, but {layer} may import only {', '.join(sorted(OUTSIDE[layer]))} from outside")
    return faults


def is_standard(top: str) -> bool:
    return top in sys.stdlib_module_names


def import_circle(imports: list[Import]) -> list[str]:
    """The modules of one circle of imports, those in functions and for type checkers too, or nothing.

    The public surface is left out: it names everything, and loads it when it is asked for.
    """
    edges: dict[str, set[str]] = {}
    for found in imports:
        inside = found.imported.partition(".")[0] == "graphgrow" and found.imported != found.importer
        if inside and SURFACE not in (found.importer, found.imported):
            edges.setdefault(found.importer, set()).add(found.imported)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_every_import_keeps_to_its_layer() -> None:
    assert layer_faults(all_imports(ROOT)) == []


def test_no_circle_of_imports() -> None:
    assert import_circle(all_imports(ROOT)) == []


def test_every_source_is_seen() -> None:
    files = module_files(ROOT)
    assert {"graphgrow", "graphgrow.errors", "graphgrow.models.vit", "graphgrow.passes"} <= set(files)
    assert {layer_of(module) for module in files} <= set(ALLOWED)


def write_sources(root: Path, sources: dict[str, str]) -> Path:
    for folder in FOLDERS.values():
        (root / folder).mkdir()
        (root / folder / "__init__.py").touch()
    for name, source in sources.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("graphgrow/ir/terms.py", "from graphgrow.ops import registry", "ir may import only errors, records"),
        ("graphgrow/ir/terms.py", "def f():\n    import graphgrow.rewrite", "ir may import only"),
        ("graphgrow/ir/terms.py", "from ..verification import bounds", "ir may import only"),
        ("graphgrow/ir/terms.py", "import onnx", "ir may import only torch from outside"),
        ("graphgrow/export/onnx.py", "from graphgrow.bench import latency", "export may import only"),
        ("graphgrow/report/table.py", "from graphgrow import stage", "report may import only"),
        ("graphgrow/stage/run.py", "import graphgrow as gg", "stage may import only"),
        ("graphgrow/novel/thing.py", "import torch", "not in the table"),
        (
            "graphgrow/capture/graphs/modes.py",
            "from graphgrow.capture.tracing import tracer",
            "capture.graphs may import only model of it",
        ),
        (
            "graphgrow/capture/model/trial.py",
            "from graphgrow.capture.trace import capture",
            "capture.model may import only itself",
        ),
        ("graphgrow/capture/novel/thing.py", "from graphgrow.capture.model import run", "not in the table of capture"),
        ("passes/widen.py", "from graphgrow.verification import verdict", "passes may import only"),
        ("models/vit.py", "from graphgrow.errors import GraphGrowError", "models may import only itself"),
        ("models/vit.py", "import numpy", "models may import only torch from outside"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, name: str, source: str, fault: str) -> None:
    faults = layer_faults(all_imports(write_sources(tmp_path, {name: source})))
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize("guard", ["if TYPE_CHECKING:", "def f():", "class Late:", "try:"])
def test_imports_for_type_checkers_and_late_ones_are_held_too(tmp_path: Path, guard: str) -> None:
    end = "\nfinally:\n    pass" if guard == "try:" else ""
    source = f"{guard}\n    from graphgrow.ir import second{end}"
    root = write_sources(tmp_path, {"graphgrow/ir/first.py": source, "graphgrow/ir/second.py": ""})
    assert import_circle(all_imports(root)) == []
    (root / "graphgrow/ir/second.py").write_text("from .first import name", encoding="utf-8")
    assert set(import_circle(all_imports(root))) == {"graphgrow.ir.first", "graphgrow.ir.second"}
    (root / "graphgrow/ir/second.py").write_text(source.replace("ir", "verification"), encoding="utf-8")
    assert len(layer_faults(all_imports(root))) == 1
