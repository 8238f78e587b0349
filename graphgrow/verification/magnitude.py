"""The local magnitude |W| |x| + |b| of a node: what its rounding is measured against."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir.called import called_module
from graphgrow.verification.runner import Runner
from graphgrow.verification.worst import largest

_ROWWISE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MULTILINEAR = frozenset(
    (F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
     torch.matmul, torch.mm, torch.bmm, torch.einsum, torch.addmm, torch.baddbmm, operator.matmul)
)  # fmt: skip
_MULTILINEAR_METHODS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__")


def magnitude(
    runner: Runner, node: fx.Node, expected: torch.Tensor, args: Any, kwargs: Any, seen: Sequence[torch.Tensor]
) -> torch.Tensor:
    """What the rounding of a node may be held against, broadcastable to its output.

    For linear maps |W| max|x| + |b| for each output channel, for products and functional maps the same operator on
    absolute values, for any other operator the largest element among inputs and output.

    Args:
        runner: of the graph that the node belongs to.
        node: the node.
        expected: its output.
        args: the arguments it was applied to.
        kwargs: keyword arguments.
        seen: the tensors that arrive from the model's inputs.
    """
    rows = row_sums(runner, node, torch.stack([largest(t) for t in seen if t.is_floating_point()] or [torch.ones(())]))
    if rows is not None:
        return rows.reshape(-1, *[1] * (expected.dim() - 1 - channel_axis(expected, runner, node)))
    of_all = torch.stack([largest(t) for t in (expected, *seen) if t.is_floating_point()]).max()
    multilinear = node.target in (_MULTILINEAR_METHODS if node.op == "call_method" else _MULTILINEAR)
    if node.op == "call_module" or not multilinear:
        return of_all
    absolute = fx.node.map_aggregate((args, kwargs), _absolute)
    return torch.maximum(runner.apply(node, *absolute).nan_to_num(posinf=0.0), of_all)


def row_sums(runner: Runner, node: fx.Node, arriving: torch.Tensor) -> torch.Tensor | None:
    """The sum |W| max|x| + |b| for each output channel, where the node calls a linear map; `arriving` holds max|x|."""
    called = called_module(runner.module, node)
    if not isinstance(called, _ROWWISE):
        return None
    weight = runner.numbers.of(called.weight)
    sums: torch.Tensor = torch.linalg.vector_norm(weight, 1, dim=tuple(range(1, weight.dim())))
    rows = sums * arriving.max().to(weight)
    return rows if called.bias is None else rows + runner.numbers.of(called.bias).abs()


def channel_axis(output: torch.Tensor, runner: Runner, node: fx.Node) -> int:
    """The axis of output channels of a linear map: the last, or the one in front of the positions."""
    weight = runner.module.get_parameter(f"{node.target}.weight")
    return output.dim() - 1 - max(weight.dim() - 2, 0)


def _absolute(leaf: Any) -> Any:
    return leaf.abs() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
