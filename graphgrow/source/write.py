"""A grown model as plain Python: a readable file and its weights, which torch runs without graphgrow."""

from __future__ import annotations

import keyword
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes
from torch import fx, nn

from graphgrow.errors import ExportError
from graphgrow.export.files import publish
from graphgrow.ir.inputs import TensorSpec
from graphgrow.network.network import Network, require_network
from graphgrow.records import Record
from graphgrow.source.agreement import check_agreement
from graphgrow.source.forward import forward_lines
from graphgrow.source.hierarchy import PART, PART_SOURCE, Hierarchy, mode_lines
from graphgrow.source.imports import Imports
from graphgrow.source.tree import Tree

MODEL_FILE = "model.py"
WEIGHTS_FILE = "model.safetensors"
_MARK = "written by graphgrow"
_WEIGHTS_LINE = re.compile(r'^WEIGHTS = "(model(?:-\d+)?\.safetensors)"', re.MULTILINE)


@dataclass(frozen=True)
class SourceRecord(Record):
    """A model written as plain Python, which makes the graph's module again to the bit.

    Attributes:
        path: file name of the code, relative to the record.
        weights: file name of the tensors, beside it.
        bytes: size of both files.
        class_name: of the model in the code.
        parameters: number of scalar parameters, tied ones once.
        packages: what the code imports beside torch, safetensors and the standard library.
        versions: of torch and safetensors when it was checked.
        notes: what a reader should know: modes in which the graph is not the model's, and what was not compared.
    """

    path: str
    weights: str
    bytes: int
    class_name: str
    parameters: int
    packages: tuple[str, ...]
    versions: dict[str, str]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        imports = f", imports {', '.join(self.packages)}" if self.packages else ""
        head = f"{self.path}: {self.class_name}, {self.parameters:,} parameters{imports}; weights in {self.weights}, "
        return "\n".join([f"{head}{self.bytes / 1e6:.2f} MB together", *(f"  note: {note}" for note in self.notes)])


def export_source(graph: Network, folder: str | os.PathLike[str]) -> SourceRecord:
    """Write a graph as plain Python and a safetensors file, which run with torch and safetensors alone.

    `model.py` holds a class named after the model, with the names of the graph's state_dict, and `load()`, which
    reads the weights beside it: `from model import load; net = load()`. Before anything is written, the code is run
    and its module compared with the graph's, to the bit, in eval and train mode.

    Args:
        graph: a `Graph`; it is not changed.
        folder: made where it is missing. A model exported there before is replaced: its code in one step, with
            weights under a second name, so that a crash leaves the old pair or the new one.

    Raises:
        Unsupported: if it is no graph.
        ExportError: if a module has no constructor call that makes it again (a leaf class of the user's own,
            parametrised tensors, attributes changed by hand), the generated code disagrees, or the files cannot be
            written. The folder is then as it was.
    """
    require_network(graph, "gg.export_source")
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} is a file, wanted a folder; pass for example {target.parent / 'exported'}")
    weights = _weights_name(target)
    text, class_name, packages = _source(graph, weights)
    try:
        anchor = next(place for place in (target, *target.absolute().parents) if place.is_dir())
        with tempfile.TemporaryDirectory(prefix=".export-", dir=anchor, ignore_cleanup_errors=True) as place:
            files = [Path(place) / MODEL_FILE, Path(place) / weights]
            files[0].write_text(text, encoding="utf-8")
            files[1].write_bytes(tensor_bytes(_tensors(graph.module)))
            notes = check_agreement(files[0], graph)
            total = sum(file.stat().st_size for file in files)
            _publish(files, target)
    except OSError as error:
        raise ExportError(
            f"cannot write to {target}: {error.strerror or error}; make room, or choose another place"
        ) from error
    return SourceRecord(
        path=MODEL_FILE,
        weights=weights,
        bytes=total,
        class_name=class_name,
        parameters=sum(parameter.numel() for parameter in graph.module.parameters()),
        packages=packages,
        versions={name: version(name) for name in ("torch", "safetensors")},
        notes=(*graph.notes, *notes),
    )


def _publish(files: list[Path], folder: Path) -> None:
    """Move the code and its weights into the folder, and remove the weights of the code that was there before.

    Raises:
        OSError: if that fails; the folder is then as it was.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    old = _old_weights(folder)
    try:
        publish(files, folder / MODEL_FILE)
    except OSError:
        if _old_weights(folder) == old:
            (folder / files[1].name).unlink(missing_ok=True)
        if made:
            folder.rmdir()
        raise
    if old is not None:
        (folder / old).unlink(missing_ok=True)


def _weights_name(folder: Path) -> str:
    """A name for the weights that no file in the folder has.

    Raises:
        ExportError: if the folder holds a model.py of somebody else's.
    """
    present = folder / MODEL_FILE
    if present.exists() and _MARK not in present.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise ExportError(f"{present} was not {_MARK}, and would be lost; choose another folder")
    names = (WEIGHTS_FILE if number == 1 else f"model-{number}.safetensors" for number in count(1))
    return next(name for name in names if not (folder / name).exists())


def _old_weights(folder: Path) -> str | None:
    """The weights' file that the code in the folder reads, if there is any."""
    present = folder / MODEL_FILE
    found = _WEIGHTS_LINE.search(present.read_text(encoding="utf-8")) if present.exists() else None
    return found and found.group(1)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once, under its first name, dense and on the CPU."""
    tensors = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        tensors[name] = tensor.detach().cpu().contiguous().clone()
    return tensors


def _source(graph: Network, weights: str) -> tuple[str, str, tuple[str, ...]]:
    """The text of the file, the name of its class, and the packages it needs."""
    module = graph.module
    lost = next((name for name, tensor in _named(module) if tensor.is_meta), None)
    if lost is not None:
        raise ExportError(f"`{lost}` is on the meta device and has no numbers to write; load weights into it first")
    imports = Imports()
    for origin, name in (("torch", None), ("torch", "nn"), ("pathlib", "Path"), ("safetensors.torch", "load_file")):
        imports.add(origin, name)
    tree = Tree(module)
    hierarchy = Hierarchy(tree, imports)
    init = hierarchy.lines()
    specs = _placeholders(graph)
    tensors = {name for name, spec in specs if isinstance(spec, TensorSpec)}
    forward = forward_lines(tree, imports, tensors, {PART, "WEIGHTS", "load"})
    if hierarchy.uses_part:
        imports.add("typing", "Any")
    class_name = _class_name(module, imports.bound | {PART, "load"})
    blocks = [
        "\n".join([_docstring(graph, class_name, weights), "", "from __future__ import annotations", ""]),
        "\n".join([*imports.lines(), "", f'WEIGHTS = "{weights}"']),
        *(source.rstrip() for source in imports.sources.values()),
        *([PART_SOURCE.rstrip()] if hierarchy.uses_part else []),
        "\n".join([*_class_head(class_name, PART if tree.is_numbered else "nn.Module", specs), *init, "", *forward]),
        "\n".join(_load(tree, class_name)),
    ]
    return blocks[0] + "\n" + "\n\n\n".join(blocks[1:]) + "\n", class_name, imports.packages


def _named(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _placeholders(graph: Network) -> list[tuple[str, Any]]:
    """The parameters of the forward, with the specification of what the graph was captured with."""
    found = []
    names = [str(node.target).lstrip("*") for node in graph.module.graph.nodes if node.op == "placeholder"]
    for position, name in enumerate(names):
        if position < len(graph.inputs.args):
            found.append((name, graph.inputs.args[position]))
        elif name in graph.inputs.kwargs:
            found.append((name, graph.inputs.kwargs[name]))
    return found


def _class_name(module: fx.GraphModule, taken: set[str]) -> str:
    name = type(module).__name__
    if not name.isidentifier() or keyword.iskeyword(name) or name in taken:
        name = "Model" if "Model" not in taken else "ExportedModel"
    return name


def _docstring(graph: Network, class_name: str, weights: str) -> str:
    lines = [f'"""{class_name} as plain torch code, {_MARK} {version("graphgrow")}.', ""]
    lines += ["    from model import load", "", f"    net = load()  # reads {weights} beside this file", ""]
    base = f"`{graph.base}`" if graph.base else f"a {type(graph.module).__name__}"
    if len(graph.ledger):
        lines += [f"Grown from {base} by", "", *(f"    {_plain(str(entry))}" for entry in graph.ledger)]
    else:
        lines += [f"The same as {base}, from which it was captured."]
    lines += ["", *(f"{_plain(note[:1].upper() + note[1:])}." for note in graph.notes)] if graph.notes else []
    return "\n".join([*lines, '"""'])


def _plain(text: str) -> str:
    """A text that ends no docstring and means itself."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _class_head(class_name: str, base: str, specs: list[tuple[str, Any]]) -> Iterator[str]:
    shown = [f"        {name}: {_shown(spec)}" for name, spec in specs]
    yield f"class {class_name}({base}):"
    yield f'    """{class_name}; `load()` gives it its weights.'
    yield ""
    yield "    It was captured with these inputs:"
    yield ""
    yield from shown
    yield '    """'
    yield ""
    yield "    def __init__(self) -> None:"
    yield "        super().__init__()"


def _shown(spec: Any) -> str:
    if isinstance(spec, TensorSpec):
        return f"{str(spec.dtype).removeprefix('torch.')} {spec.shape}"
    return _plain(f"{spec!r:.60}")


def _load(tree: Tree, class_name: str) -> Iterator[str]:
    modes = mode_lines(tree, "net")
    mode = "train" if tree.root.training else "eval"
    whole = not modes or modes == ["net.eval()"]
    yield f"def load() -> {class_name}:"
    yield f'    """The model with its weights, on the CPU, in {mode} mode{"" if whole else " but for some parts"}."""'
    yield "    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten"
    yield f"        net = {class_name}()"
    yield "    tensors = load_file(Path(__file__).with_name(WEIGHTS))"
    yield "    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:"
    yield "        stored = tensors[name]"
    yield "        if (stored.shape, stored.dtype) != (tensor.shape, tensor.dtype):"
    yield '            raise ValueError(f"{WEIGHTS} holds another {name} than this code; keep the two files together")'
    yield "        tensor.data.copy_(stored)  # in place, so that what is tied stays tied"
    yield from (f"    {line}" for line in modes)
    yield "    return net"
