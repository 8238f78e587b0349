"""Export to ONNX by torch's exporter; no file appears that onnxruntime does not run to torch's numbers."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from graphgrow.errors import ExportError
from graphgrow.export.files import check, publish, write
from graphgrow.export.flat import FlatModule, input_names, output_names, tensors_of
from graphgrow.export.parity import Parity, Tensors, check_parity, largest, reduction_length, references, unit_roundoff
from graphgrow.export.program import convert, first_cause
from graphgrow.ir.inputs import InputSpec
from graphgrow.records import ExportRecord

EXTERNAL_DATA_ABOVE = 2**31 - 2**27
"""Weights of more bytes go into a file of their own: protobuf ends at 2 GiB, and the graph itself needs some of it."""

SAMPLES = 4
"""The fewest inputs to compare on: one rounding error may by chance be zero, and with it the bound."""


class Exportable(Protocol):
    """What can be exported: a module, and the specification of what it is called with."""

    @property
    def module(self) -> nn.Module:
        """The model."""

    @property
    def inputs(self) -> InputSpec:
        """What it is called with."""


@dataclass(frozen=True)
class _Runs:
    """What torch computed: batch sizes with their inputs, the outputs, and why the batch has to be static, if so."""

    samples: list[tuple[int | None, Tensors]]
    outputs: list[Tensors]
    note: str | None = None


def export_onnx(
    graph: Exportable,
    path: str | os.PathLike[str],
    *,
    opset: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    external_data_above: int = EXTERNAL_DATA_ABOVE,
) -> ExportRecord:
    """Export in eval mode, compare onnxruntime with torch, and only then put the file in its place.

    A copy of the model is exported; the graph, its mode flags and torch's random state stay as they were. Axis 0 of
    the inputs accepts any batch size where the model does; where not, the record says why.

    Args:
        graph: a `Graph`, or anything with `.module` and `.inputs`.
        path: of the ONNX file; missing folders are made, an existing file is replaced. Weights that are too large
            for it go into `<path>.data` beside it.
        opset: of the standard ONNX operators; None is the exporter's default.
        batch_sizes: to compare at; None is 1, the example's and 3. A static export is compared at the example's.
        external_data_above: bytes of weights above which they get a file of their own.

    Raises:
        ExportError: if the model cannot be exported, or an output of onnxruntime exceeds its bound. What was at
            `path` before is then still there.
    """
    target = Path(path)
    if target.is_dir():
        raise ExportError(f"{target} is a folder, wanted a file name; pass for example {target / 'model.onnx'}")
    sizes = _sizes(graph.inputs, batch_sizes)
    with torch.no_grad(), torch.random.fork_rng(), _plain_precision(graph.inputs.device):
        flat, names_in, names_out = _flat_copy(graph)
        runs = _run(flat, graph.inputs, sizes)
        program = convert(flat, graph.inputs, names_in, names_out, opset=opset, dynamic=runs.note is None)
        notes = [note for note in (runs.note, program.note) if note is not None]
        if program.note is not None:
            runs = _run(flat, graph.inputs, [])
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
                files = write(program.model, Path(folder), target, external_data_above)
                opset_found = check(files[0], opset)
                parity = _compare(flat, files[0], names_in, names_out, runs)
                total = sum(file.stat().st_size for file in files)
                publish(files, target)
        except OSError as error:
            raise ExportError(
                f"cannot write {target}: {error.strerror or error}; make room, or choose another place"
            ) from error
    return ExportRecord(
        path=target.name,
        bytes=total,
        external_data=len(files) > 1,
        opset=opset_found,
        versions={name: version(name) for name in ("torch", "onnx", "onnxruntime", "onnxscript")},
        input_names=tuple(names_in),
        output_names=tuple(names_out),
        dynamic_batch=program.dynamic,
        batch_sizes=tuple(sorted({size for size, _ in runs.samples if size is not None})),
        max_error=parity.max_error,
        bound=parity.bound,
        bound_derivation=parity.derivation,
        notes=(*notes, *parity.notes),
    )


def _sizes(inputs: InputSpec, wanted: Sequence[int] | None) -> list[int]:
    """The batch sizes to compare at, each once; none where the inputs have no batch axis."""
    if inputs.batch_size is None:
        return []
    sizes: list[object] = [1, inputs.batch_size, 3] if wanted is None else list(wanted)
    checked = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]
    if not checked or len(checked) < len(sizes):
        raise ExportError(f"batch_sizes is {wanted!r}, wanted positive integers; pass for example (1, 8)")
    return sorted(set(checked))


def _flat_copy(graph: Exportable) -> tuple[FlatModule, list[str], list[str]]:
    """A copy of the model in eval mode, over flat tensors, and the names of its inputs and outputs."""
    args, kwargs = graph.inputs.sample()
    module = copy.deepcopy(graph.module).eval().requires_grad_(False)
    flat = FlatModule(module, args, kwargs)
    names = input_names(module, args, kwargs)
    tensors = [*module.parameters(), *module.buffers(), *tensors_of(args, kwargs)]
    narrow = next((tensor.dtype for tensor in tensors if tensor.dtype in _NOT_IN_ONNXRUNTIME), None)
    if narrow is not None:
        raise ExportError(
            f"the model holds {narrow}, which onnxruntime's CPU kernels lack; export a float32 copy of it (.float())"
        )
    if any(tensor.is_meta for tensor in tensors):
        raise ExportError("the model is on the meta device and has no numbers to export; load weights into it first")
    try:
        output, again = (flat.call(*(tensor.clone() for tensor in tensors_of(args, kwargs))) for _ in range(2))
    except Exception as error:  # the user's own code runs here
        raise ExportError(
            f"the model fails on inputs like its examples: {first_cause(error)}; trace it with inputs that it accepts"
        ) from error
    named = output_names(output, names)
    _same_twice(tensors_of((output,), {}), tensors_of((again,), {}), named)
    return flat, names, named


def _same_twice(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], names: Sequence[str]) -> None:
    """Refuse a model that draws random numbers: its noise would be taken for rounding, and widen the bound."""
    for one, other, name in zip(first, second, names, strict=True):
        tolerance = math.sqrt(torch.finfo(one.dtype).eps) if one.is_floating_point() else 0.0
        if not torch.allclose(one, other, rtol=tolerance, atol=tolerance * largest(one), equal_nan=True):
            raise ExportError(
                f"output {name!r} differs between two runs on the same input in eval mode, so nothing can be compared; "
                "take the random numbers out of the model, or make them an input"
            )


_NOT_IN_ONNXRUNTIME = (torch.bfloat16, torch.complex64, torch.complex128)


def _run(flat: FlatModule, inputs: InputSpec, sizes: Sequence[int]) -> _Runs:
    """Run the model at each batch size; at the example's alone where there are none, or where another fails."""
    samples: list[tuple[int | None, Tensors]] = []
    outputs: list[Tensors] = []
    wanted: list[int | None] = list(sizes) if sizes else [inputs.batch_size]
    for seed in range(max(len(wanted), SAMPLES)):
        size = wanted[seed % len(wanted)]
        tensors = tuple(tensors_of(*inputs.sample(seed=seed, batch_size=size)))
        try:
            outputs.append(flat(*(tensor.clone() for tensor in tensors)))
        except Exception as error:  # the user's own code runs here
            if not sizes:
                raise ExportError(f"the model fails on inputs like its examples: {first_cause(error)}") from error
            alone = _run(flat, inputs, [])
            reason = f"since the model itself fails at batch size {size}: {first_cause(error)}"
            return _Runs(alone.samples, alone.outputs, f"static batch {inputs.batch_size}, {reason}")
        samples.append((size, tensors))
    note = "the inputs have no batch axis" if inputs.batch_size is None else None
    return _Runs(samples, outputs, note)


def _compare(flat: FlatModule, file: Path, names_in: Sequence[str], names_out: Sequence[str], runs: _Runs) -> Parity:
    """Compare the written file with torch; `flat` is used up."""
    tensors = [tensor for _, inputs in runs.samples for tensor in inputs]
    reduction, roundoff = reduction_length(flat), unit_roundoff(flat, tensors)
    right, noise = references(flat, runs.samples, runs.outputs)
    return check_parity(file, names_in, names_out, right, noise=noise, reduction=reduction, roundoff=roundoff)


@contextlib.contextmanager
def _plain_precision(device: torch.device) -> Iterator[None]:
    """Without TF32: its error would widen the bound a thousandfold."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
