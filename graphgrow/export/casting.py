"""A copy of a model in another dtype of floating point, for kernels that lack its own."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir.inputs import InputSpec
from graphgrow.rewrite.erase import erase_dtype_checks

NOT_IN_ONNXRUNTIME = torch.bfloat16
"""Of this dtype onnxruntime's CPU kernels have nothing at all; of float64 and float16 they have most."""

_CASTS = {"double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Cast:
    """A model and what it is called with, in another dtype; it shares no tensor with the original."""

    module: nn.Module
    inputs: InputSpec


def cast(module: nn.Module, inputs: InputSpec, dtype: torch.dtype) -> Cast:
    """Copy a model with all its tensors of floating point in one dtype, and the dtypes that its graph names.

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
    return Cast(twin, inputs.with_dtype(dtype))
