"""Whether a model runs on whole numbers that are drawn: the sizes of images, the places of their tokens may not be."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from graphgrow.capture.model.running import run_in_eval, run_in_train
from graphgrow.ir.inputs import InputSpec


def given_where_needed(
    inputs: InputSpec,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    training: bool,
    restore: Callable[[], None],
) -> tuple[InputSpec, tuple[str, ...]]:
    """The inputs with the example's whole numbers and truths where the graph does not run on drawn ones, and a note.

    Args:
        inputs: that samples are drawn of.
        module: the graph.
        args: positional example inputs, on which the graph was seen to run.
        kwargs: keyword example inputs, likewise.
        training: whether the graph holds for train mode alone.
        restore: puts back what a call of the graph has changed.
    """
    if all(spec.dtype.is_floating_point or spec.dtype.is_complex for spec in inputs.tensors):
        return inputs, ()
    run, drawn = run_in_train if training else run_in_eval, inputs.sample()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # fx tells every error of a graph there too
            run(module, *drawn)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        note = f"samples of the inputs have the example's whole numbers, as it does not run on drawn ones: {why:.160}"
        return inputs.with_given(args, kwargs), (note,)
    finally:
        restore()
    return inputs, ()
