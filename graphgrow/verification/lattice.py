"""The integer lattice: small whole numbers and sparse maps in float64, where an exact rewrite must agree bit for bit.

Sums of whole numbers, and of the shares of a split, are exact in float64 as long as they stay small, in whatever
order they are summed. So nothing needs to be allowed: one differing bit is a mistake. It works through linear maps,
convolutions, additions, ReLU, maxima, concatenations and reshapes, batch norms in eval mode (the variance is chosen so
that they divide by exactly 1), and means (everything is a multiple of the odd sizes that are averaged over).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network
from graphgrow.rewrite.apply import replay
from graphgrow.verification.case import Case, Findings
from graphgrow.verification.copies import wide_network
from graphgrow.verification.exactness import is_exact
from graphgrow.verification.numbers import Numbers
from graphgrow.verification.probes import Inputs
from graphgrow.verification.squares import run_pair
from graphgrow.verification.worst import Worst

NON_ZERO = 3  # entries in a row of a map
LARGEST_MULTIPLE = 2**16
_MODULES = frozenset(
    {"Linear", "Conv1d", "Conv2d", "Conv3d", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "ReLU", "ReLU6", "Identity",
     "PReLU", "Hardtanh", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "MaxPool1d", "MaxPool2d", "MaxPool3d",
     "AdaptiveMaxPool2d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
     "AdaptiveAvgPool3d", "Flatten", "Unflatten", "Embedding", "ZeroPad2d", "ConstantPad2d", "ReflectionPad2d",
     "PixelShuffle", "PixelUnshuffle", "ChannelShuffle", "UpsamplingNearest2d", "StochasticDepth", "DropPath", "Gate"}
)  # fmt: skip
_OPERATORS = frozenset(
    {"add", "iadd", "add_", "sub", "isub", "sub_", "neg", "relu", "relu_", "relu6", "cat", "concat", "stack", "flatten",
     "reshape", "view", "permute", "transpose", "contiguous", "clone", "squeeze", "unsqueeze", "expand", "expand_as",
     "repeat", "roll", "flip", "getitem", "getattr", "chunk", "split", "unbind", "select", "narrow", "index_select",
     "max", "amax", "maximum", "min", "amin", "minimum", "sum", "mean", "pad", "matmul", "bmm", "mm", "einsum",
     "linear", "conv1d", "conv2d", "conv3d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "channel_shuffle",
     "unflatten", "size", "to", "float", "double", "type_as", "detach", "mul", "_assert", "require_decision",
     "require_dtypes", "shape", "swapaxes", "t"}
)  # fmt: skip


def compare_on_lattice(case: Case, found: Findings) -> None:
    """Refill the parent on the lattice, apply the ledger, and compare every node bit for bit, in eval mode."""
    if case.resting:
        found.notes.append("lattice: does not apply, a mutation is exact for the present numbers alone")
        return
    multiple, why = _multiple(case.parent.module)
    why = why or next(_foreign(case.parent.module), "")
    if why:
        found.notes.append(f"lattice: does not apply, {why}")
        return
    base = on_lattice(case.parent, case.probes.seed, multiple)
    grown = replay(base, case.entries)
    there = dataclasses.replace(case, parent=base, child=grown, wide=Numbers(torch.float64))
    worst = Worst()
    with torch.no_grad():
        for number, probe in case.drawn(torch.float64).items():
            whole = _whole(probe, case.probes.seed + number, multiple)
            first, second = (there.runner(side.module, whole, "eval") for side in (base, grown))
            outputs = run_pair(first, second, case.counterparts, worst, tolerance=0.0)
            for (path, a), b in zip(
                pytree.tree_leaves_with_path(outputs[0]), pytree.tree_leaves(outputs[1]), strict=True
            ):
                if isinstance(a, torch.Tensor) and a.is_floating_point():
                    worst.see((a - b).abs(), torch.zeros(()), f"output{pytree.keystr(path)}")
            if not worst.passed:
                break
    if not worst.passed and not is_exact(there, worst.first_failure or "", whole):
        found.notes.append(
            f"lattice: does not apply, the numbers at `{worst.first_failure}` leave the range in which sums are exact"
        )
        return
    found.checks.append(worst.check("lattice", "nodes and outputs, whole numbers", "bit for bit"))
    found.part = found.part or worst.first_failure


def on_lattice(network: Network, seed: int, multiple: int = 1) -> Network:
    """A copy of a network in float64 with whole numbers for weights, `NON_ZERO` of them in a row of a map.

    Args:
        network: to be copied.
        seed: of the numbers.
        multiple: what is added (biases, means, tables) are multiples of this.
    """
    wide = wide_network(network)
    module = Editor(wide.module, share=False).finish()
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for part in module.modules():
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                if tensor.is_floating_point() and id(tensor) not in done:
                    done.add(id(tensor))
                    _fill(part, name, tensor, generator, multiple)
    return dataclasses.replace(wide, module=module)


def _fill(part: nn.Module, name: str, tensor: torch.Tensor, generator: torch.Generator, multiple: int) -> None:
    signs = torch.randint(0, 2, tensor.shape, generator=generator).double() * 2 - 1
    if name == "running_var":
        tensor.fill_(_variance(float(getattr(part, "eps", 0.0))))
    elif isinstance(part, nn.modules.batchnorm._NormBase) and name == "weight":
        tensor.copy_(signs)
    elif isinstance(tensor, nn.Parameter) and tensor.dim() >= 2 and not isinstance(part, nn.Embedding):
        rows = torch.rand(tensor.shape, generator=generator).flatten(1)
        few = rows.topk(min(NON_ZERO, rows.shape[1]), dim=1).indices
        tensor.copy_(
            torch.zeros(rows.shape, dtype=tensor.dtype)
            .scatter_(1, few, signs.flatten(1).gather(1, few))
            .view_as(tensor)
        )
    elif isinstance(tensor, nn.Parameter) and name == "weight" and not isinstance(part, nn.Embedding):
        tensor.copy_(signs)  # slopes
    elif isinstance(tensor, nn.Parameter) or name == "running_mean":
        tensor.copy_(torch.randint(-2, 3, tensor.shape, generator=generator) * multiple)


def _variance(eps: float) -> float:
    """The variance with which a batch norm divides by exactly 1: variance + eps = 1 in float64."""
    variance = 1.0 - eps
    for candidate in (variance, math.nextafter(variance, 0.0), math.nextafter(variance, 2.0)):
        if candidate + eps == 1.0:
            return candidate
    return variance


def _whole(probe: Inputs, seed: int, multiple: int) -> Inputs:
    """The inputs with whole numbers from -2 to 2, times a multiple, in the place of those of floating point."""
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        return (torch.randint(-2, 3, leaf.shape, generator=generator) * multiple).to(leaf)

    args, kwargs = pytree.tree_map(draw, probe)
    return args, kwargs


def _foreign(module: fx.GraphModule) -> Iterator[str]:
    """Nodes whose operators leave the lattice, in words."""
    for node in module.graph.nodes:
        value = node.meta.get("value")
        if node.op in ("placeholder", "get_attr", "output") or (
            value is not None and not any(_floating(leaf) for leaf in pytree.tree_leaves(value))
        ):
            continue
        if node.op == "call_module":
            called = module.get_submodule(str(node.target))
            name = type(called).__name__
            known = name in _MODULES and float(getattr(called, "min_val", 0)).is_integer()
        else:
            name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
            known = name in _OPERATORS
        if not known:
            yield f"`{node.name}` ({name}) leaves it"


def _floating(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _multiple(module: fx.GraphModule) -> tuple[int, str]:
    """The product of the odd parts of all sizes that are averaged over, and why there is none if there is none."""
    product = 1
    for node in module.graph.nodes:
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        if node.op == "call_module":
            name = type(module.get_submodule(str(node.target))).__name__
        if name not in ("mean", "avg_pool2d", "adaptive_avg_pool2d") and "AvgPool" not in str(name):
            continue
        size = _averaged(module, node)
        if size is None:
            return 1, f"`{node.name}` averages over windows of several sizes"
        product *= size // (size & -size)
    return (product, "") if product <= LARGEST_MULTIPLE else (1, f"its means are over {product} numbers")


def _averaged(module: fx.GraphModule, node: fx.Node) -> int | None:
    """How many numbers each element of a mean stems from; None where that is not one number."""
    source, result = node.args[0], node.meta.get("value")
    before = source.meta.get("value") if isinstance(source, fx.Node) else None
    if not isinstance(before, torch.Tensor) or not isinstance(result, torch.Tensor):
        return None
    called = called_module(module, node)
    kernel = getattr(called, "kernel_size", None)
    if kernel is not None:  # windows at the border hold fewer numbers where padding does not count
        padding = getattr(called, "padding", 0)
        uneven = padding not in (0, (0,), (0, 0), (0, 0, 0)) and not getattr(called, "count_include_pad", True)
        uneven = uneven or bool(getattr(called, "ceil_mode", False))
        return None if uneven else math.prod(kernel if isinstance(kernel, tuple) else (kernel,) * (before.dim() - 2))
    if node.target is nn.functional.avg_pool2d:
        return None
    if before.dim() == result.dim() and any(a % b for a, b in zip(before.shape, result.shape, strict=True)):
        return None
    return before.numel() // max(result.numel(), 1)
