"""Export to ONNX by torch's exporter; no file appears that onnxruntime does not run to torch's numbers."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from graphgrow.errors import ExportError
from graphgrow.export.files import check, publish, write
from graphgrow.export.flat import FlatModule, input_names, output_names, tensors_of
from graphgrow.export.parity import (
    CannotRun,
    MissingKernel,
    Parity,
    Tensors,
    check_parity,
    largest,
    reduction_length,
    references,
    unit_roundoff,
)
from graphgrow.export.program import convert, first_cause
from graphgrow.export.variants import NOT_IN_ONNXRUNTIME, at_batch_size, cast
from graphgrow.ir.inputs import InputSpec
from graphgrow.layers import Padded
from graphgrow.network.network import require_network
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
    dtype: torch.dtype | None = None,
    static_batch: int | None = None,
) -> ExportRecord:
    """Export in eval mode, compare onnxruntime with torch, and only then put the file in its place.

        print(gg.export_onnx(grown, "grown.onnx"))

    A copy of the model is exported; the graph, its mode flags and torch's random state stay as they were. Axis 0 of
    the inputs accepts any batch size where the model does; where not, the record says why.

    Where onnxruntime's CPU kernels lack the model's dtype (bfloat16; convolutions in float64) a copy in float32 is
    exported, compared with torch in float32, and the record says so.

    Args:
        graph: a `Graph`, or anything with `.module` and `.inputs`.
        path: of the ONNX file; missing folders are made, an existing file is replaced. Weights that are too large
            for it go into `<path>.data` beside it.
        opset: of the standard ONNX operators; None is the exporter's default.
        batch_sizes: to compare at; None is 1, the example's and 3. A static export is compared at the example's.
        external_data_above: bytes of weights above which they get a file of their own.
        dtype: of floating point, in which a copy of the model is exported; None is the model's own, or float32.
        static_batch: the one batch size that the file takes, and at which it is compared; such an export takes about
            three quarters of the time. None is any.

    Returns:
        What was exported and how it was compared: sizes in bytes, the largest error and its bound.

    Raises:
        ExportError: if the model cannot be exported, the graph holds for train mode alone, or an output of onnxruntime
            exceeds its bound. What was at `path` before is then still there.
    """
    if isinstance(graph, nn.Module):
        require_network(graph, "gg.export_onnx")
    target = Path(path)
    if "eval" not in getattr(graph, "modes", ("eval",)):
        raise ExportError(
            "this graph was captured in train mode, in which the model takes another path than in eval mode, for which "
            "files are exported; after model.eval(), gg.replay(model, inputs, graph.ledger) grows it likewise there"
        )
    if target.is_dir():
        raise ExportError(f"{target} is a folder, wanted a file name; pass for example {target / 'model.onnx'}")
    if dtype is not None and not dtype.is_floating_point:
        raise ExportError(f"dtype={dtype} is none of floating point; pass for example torch.float32")
    sizes = _sizes(graph.inputs, batch_sizes)
    if static_batch is not None:
        graph, sizes = at_batch_size(graph.module, graph.inputs, static_batch), []
    task = _Export(target, opset, sizes, external_data_above, static_batch is not None)
    held = _dtypes(graph)
    if dtype is None and NOT_IN_ONNXRUNTIME in held:
        return task.run(cast(graph.module, graph.inputs, torch.float32), (f"{_COPY} {NOT_IN_ONNXRUNTIME}",))
    try:
        return task.run(graph if dtype is None else cast(graph.module, graph.inputs, dtype), ())
    except MissingKernel:
        if dtype is not None or held <= {torch.float32}:
            raise
    names = ", ".join(sorted(map(str, held - {torch.float32})))
    return task.run(cast(graph.module, graph.inputs, torch.float32), (f"{_COPY} some operator in {names}",))


_COPY = "a copy in float32 was exported, since onnxruntime's CPU kernels lack"


@dataclass(frozen=True)
class _Export:
    """What is to be written, and how."""

    target: Path
    opset: int | None
    sizes: list[int]
    external_data_above: int
    static: bool

    def run(self, graph: Exportable, notes: tuple[str, ...]) -> ExportRecord:
        """Export with a dynamic batch; with a static one where torch takes more batch sizes than the file."""
        with torch.no_grad(), torch.random.fork_rng(), _plain_precision(graph.inputs.device):
            flat, names_in, names_out = _flat_copy(graph)
            runs = _run(flat, graph.inputs, self.sizes)
            if self.static:
                runs = replace(runs, note=f"static batch {graph.inputs.batch_size}, as it was asked for")
            try:
                return self._written(graph.inputs, flat, names_in, names_out, runs, notes)
            except CannotRun as error:
                if runs.note is not None:
                    raise
                cause = str(error).partition(";")[0]
            flat, names_in, names_out = _flat_copy(graph)  # the comparison has used up the first one
            alone = _run(flat, graph.inputs, [])
            alone = replace(alone, note=f"static batch {graph.inputs.batch_size}, since {cause}")
            return self._written(graph.inputs, flat, names_in, names_out, alone, notes)

    def _written(
        self,
        inputs: InputSpec,
        flat: FlatModule,
        names_in: list[str],
        names_out: list[str],
        runs: _Runs,
        notes: tuple[str, ...],
    ) -> ExportRecord:
        """Convert, write beside the target, compare, and move into place."""
        target = self.target
        program = convert(flat, inputs, names_in, names_out, opset=self.opset, dynamic=runs.note is None)
        if program.note is not None:
            runs = replace(_run(flat, inputs, []), note=program.note)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=".export-", dir=target.parent, ignore_cleanup_errors=True
            ) as folder:
                files = write(program.model, Path(folder), target, self.external_data_above)
                opset_found = check(files[0], self.opset)
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
            notes=(*notes, *filter(None, [runs.note]), *parity.notes),
        )


def _dtypes(graph: Exportable) -> set[torch.dtype]:
    """The dtypes of floating point that a model holds and is called with."""
    tensors = [*graph.module.parameters(), *graph.module.buffers()]
    held = {tensor.dtype for tensor in tensors} | {spec.dtype for spec in graph.inputs.tensors}
    return {dtype for dtype in held if dtype.is_floating_point}


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
    complex_one = next((tensor.dtype for tensor in tensors if tensor.dtype.is_complex), None)
    if complex_one is not None:
        raise ExportError(
            f"the model holds {complex_one}, which onnxruntime lacks; compute with real and imaginary parts"
        )
    packs = next((path for path, part in module.named_modules() if isinstance(part, Padded)), None)
    if packs is not None:
        raise ExportError(
            f"`{packs}` packs its sequences by their lengths, for which torch's exporter has nothing; gg.export_source "
            "writes plain torch"
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
