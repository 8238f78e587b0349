"""ONNX files on disk: written beside their target, checked, then moved into place, weights first."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from graphgrow.errors import ExportError
from graphgrow.store.files import sync

if TYPE_CHECKING:
    import onnx_ir


def write(model: onnx_ir.Model, folder: Path, target: Path, external_data_above: int) -> list[Path]:
    """Write the model into `folder` under the target's name: the ONNX file, and its weights' file if they are large.

    A weights' file that an earlier export left beside the target is not overwritten, so that the old pair stays whole
    until the new ONNX file is in place: the new one takes the next free name.
    """
    import onnx_ir

    file = folder / target.name
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(tensor.nbytes for tensor in tensors) <= external_data_above:
        onnx_ir.save(model, file)
        return [file]
    numbered = (f"{target.name}.data{count or ''}" for count in itertools.count())
    name = next(name for name in numbered if not (target.parent / name).exists())
    onnx_ir.save(model, file, external_data=name)
    return [file, folder / name]


def check(file: Path, wanted: int | None) -> int:
    """Run onnx's checker with shape inference; returns the version of the standard operator set.

    Raises:
        ExportError: if the checker refuses the file, or its operator set is not the wanted one.
    """
    import onnx

    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"onnx.checker refuses the exported model: {' '.join(str(error).split())[:300]}; no file was written. "
            "Try another opset="
        ) from error
    imports = onnx.load(str(file), load_external_data=False).opset_import
    found = next(int(entry.version) for entry in imports if entry.domain in ("", "ai.onnx"))
    if wanted is not None and found != wanted:
        raise ExportError(
            f"the exporter could not convert the model to opset {wanted}, it stays at {found}; no file was written. "
            f"Pass opset={found}, or none"
        )
    return found


def publish(files: list[Path], target: Path) -> None:
    """Move the files into place, the ONNX file last; then remove weights that an earlier export left beside it."""
    for file in files:
        sync(file)
    for file in reversed(files):
        file.replace(target.parent / file.name)
    sync(target.parent)
    kept = {file.name for file in files}
    ours = re.compile(re.escape(target.name) + r"\.data\d*")
    for stale in [entry for entry in target.parent.iterdir() if ours.fullmatch(entry.name)]:
        if stale.name not in kept:
            stale.unlink()
