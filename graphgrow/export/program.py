"""From a flat module to an ONNX program: torch's exporter, quiet, with a dynamic batch where the model allows it."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from graphgrow.errors import ExportError
from graphgrow.export.constants import constants_taken_exactly
from graphgrow.export.flat import FlatModule, tensors_of
from graphgrow.export.heads import WithHeads
from graphgrow.export.operator_table import operator_table_kept
from graphgrow.ir.inputs import InputSpec

if TYPE_CHECKING:
    import onnx_ir

_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Program:
    """An ONNX model in memory (its weights alias the module's), and whether its batch axis is dynamic."""

    model: onnx_ir.Model
    dynamic: bool
    note: str | None


def convert(
    flat: FlatModule,
    inputs: InputSpec,
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    opset: int | None,
    dynamic: bool,
) -> Program:
    """Export `flat` with a dynamic batch; with the example's batch size where the model does not admit one.

    Args:
        flat: in eval mode.
        inputs: the specification that `flat` was made from.
        input_names: one for each tensor that `flat` takes.
        output_names: one for each tensor that it returns.
        opset: of the standard operators; None is the exporter's default.
        dynamic: False exports a static batch without trying.

    Raises:
        ExportError: if the exporter fails with a static batch too.
    """
    note = None
    if dynamic:
        try:
            model = _export(flat, inputs, input_names, output_names, opset, dynamic=True)
            if not _fixed(model, inputs):
                return Program(model, True, None)
            cause = "the model fixes the size of axis 0"
        except Exception as error:  # noqa: BLE001 - the exporter documents no types; a static export comes next
            cause = first_cause(error)
        note = f"static batch {inputs.batch_size}, since the export with a dynamic one failed: {cause}"
    try:
        return Program(_export(flat, inputs, input_names, output_names, opset, dynamic=False), False, note)
    except Exception as error:  # as above
        raise ExportError(
            f"torch's exporter failed: {first_cause(error)}; no file was written. Replace the operator that it names "
            "by one that ONNX has, or try a higher opset="
        ) from error


def first_cause(error: BaseException) -> str:
    """The message of the exception at the bottom of a chain, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _export(
    flat: FlatModule,
    inputs: InputSpec,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int | None,
    *,
    dynamic: bool,
) -> onnx_ir.Model:
    # torch.export takes a size of 1 for a constant, so a dynamic axis is shown at least 2
    shown = max(2, inputs.batch_size or 0) if dynamic else None
    tensors = tensors_of(*inputs.sample(batch_size=shown))
    shapes = tuple({0: "batch"} if inputs.batched(spec) else None for spec in inputs.tensors) if dynamic else None
    with _quiet(), operator_table_kept(), constants_taken_exactly(), WithHeads():
        program = torch.onnx.export(
            flat,
            tuple(tensors),
            dynamo=True,
            verbose=False,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=opset,
            dynamic_shapes=(shapes,) if dynamic else None,
        )
    assert program is not None  # it is only where the exporter writes a file itself
    _clean(program.model, input_names, output_names)
    return program.model


def _fixed(model: onnx_ir.Model, inputs: InputSpec) -> bool:
    """Whether a batch axis has a number for its size: the exporter may quietly settle for that."""
    batched = [inputs.batched(spec) for spec in inputs.tensors]
    shapes = [value.shape for value in model.graph.inputs]
    return any(shape and isinstance(shape[0], int) for shape, is_batch in zip(shapes, batched, strict=True) if is_batch)


def _clean(model: onnx_ir.Model, input_names: Sequence[str], output_names: Sequence[str]) -> None:
    """Name the weights as the module does, and drop the stack traces, which name files of the machine.

    Values inside make room where an input or output has their name: an input `cat`, and what torch.cat makes.
    """
    taken = {*input_names, *output_names}
    ends = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    inner = [value for node in model.graph.all_nodes() for value in node.outputs if id(value) not in ends]
    present = {*taken, *model.graph.initializers, *(value.name for value in inner)}
    for value in (value for value in inner if value.name in taken):
        value.name = next(name for i in itertools.count(1) if (name := f"{value.name}_inner_{i}") not in present)
        present.add(value.name)
    for name, value in list(model.graph.initializers.items()):
        short = name.removeprefix("module.")
        if short not in taken and short not in model.graph.initializers:
            value.name = short
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for function in model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter prints, warns and logs; its errors are raised all the same."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
