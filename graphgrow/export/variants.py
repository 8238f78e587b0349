"""What is exported in place of a model: a copy in another dtype, or the model at one batch size."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphgrow.errors import ExportError
from graphgrow.ir.inputs import InputSpec
from graphgrow.rewrite.erase import erase_dtype_checks

NOT_IN_ONNXRUNTIME = torch.bfloat16
"""Of this dtype onnxruntime's CPU kernels have nothing at all; of float64 and float16 they have most."""

_CASTS = {"double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Variant:
    """A model and what it is called with."""

    module: nn.Module
    inputs: InputSpec


def cast(module: nn.Module, inputs: InputSpec, dtype: torch.dtype) -> Variant:
    """A copy with all its tensors of floating point in one dtype, for kernels that lack the model's own.

    The dtypes that its graph names follow.

    What the original decides by its dtypes, the copy decides alike.

    Args:
        module: the model; it is left as it is.
        inputs: of the model.
        dtype: of floating point.
    """
    held = {tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()}
    twin = copy.deepcopy(module).to(dtype)
    if isinstance(twin, fx.GraphModule):

        def named(leaf: Any) -> Any:
            return dtype if isinstance(leaf, torch.dtype) and leaf in held else leaf

        erase_dtype_checks(twin.graph)
        for node in twin.graph.nodes:
            node.args, node.kwargs = fx.node.map_aggregate((node.args, dict(node.kwargs)), named)
            if node.op == "call_method" and _CASTS.get(str(node.target)) in held:
                node.target, node.args = "to", (node.args[0], dtype)
        twin.recompile()
    return Variant(twin, inputs.with_dtype(dtype))


def at_batch_size(module: nn.Module, inputs: InputSpec, size: int) -> Variant:
    """The same model, called with one batch size alone.

    Args:
        module: the model; it is aliased.
        inputs: of the model.
        size: of their batch axis.

    Raises:
        ExportError: if the size is not positive, or the inputs have no batch axis.
    """
    if isinstance(size, bool) or size < 1:
        raise ExportError(f"static_batch={size}, wanted a positive integer; pass for example 1")
    if inputs.batch_size is None:
        raise ExportError(f"static_batch={size}, but the inputs have no batch axis; leave it out")
    shapes = [(size, *spec.shape[1:]) if inputs.batched(spec) else spec.shape for spec in inputs.tensors]
    return Variant(module, inputs.with_shapes(shapes))
