"""Could a comparison have seen a mistake? Planted ones, and outputs that would hide any."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.errors import Unsupported
from graphgrow.ir.dependence import nodes_fed, nodes_reached
from graphgrow.ir.doubles import parts
from graphgrow.ir.editor import Editor, follow_flat_weights
from graphgrow.rewrite.interface import returned_leaves
from graphgrow.verification.noise import quiet
from graphgrow.verification.numbers import Numbers
from graphgrow.verification.probes import Inputs, cast

_TRIED = 8  # weights, where no gradient says which one matters


def apart_from_inputs(module: fx.GraphModule) -> frozenset[int]:
    """Numbers of the outputs' leaves that no input's numbers reach: temperatures, a deviation of all samples."""
    return _leaves_apart(module, nodes_fed(module.graph))


def apart_from_tensors(module: fx.GraphModule) -> frozenset[int]:
    """Numbers of the outputs' leaves that no parameter's or buffer's numbers reach: masks, random orders."""

    def holds_tensors(node: fx.Node) -> bool:
        if node.op == "get_attr":
            return True
        called = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        return called is not None and any(True for _ in itertools.chain(called.parameters(), called.buffers()))

    return _leaves_apart(module, nodes_reached(module.graph, holds_tensors))


def _leaves_apart(module: fx.GraphModule, reached: Collection[fx.Node]) -> frozenset[int]:
    """Numbers of the outputs' leaves that are not among the nodes that are reached."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    apart: set[int] = set()
    number = 0
    for leaf in returned_leaves(output.args[0]):
        count = len(pytree.tree_leaves(leaf.meta["value"])) if isinstance(leaf, fx.Node) else 1
        if isinstance(leaf, fx.Node) and leaf not in reached:
            apart.update(range(number, number + count))
        number += count
    return frozenset(apart)


def degeneracy(outputs: list[Any], apart: frozenset[int] = frozenset(), unread: frozenset[int] = frozenset()) -> str:
    """Why outputs could not show a difference: not finite, empty, vanishing, or the same for every input.

    Args:
        outputs: of a model, of several inputs.
        apart: numbers of their leaves that no input reaches, which are the same for every input.
        unread: numbers of their leaves that no parameter reaches, and which may be anything where there are others.
    """
    outputs = [pytree.tree_map(_in_parts, output) for output in outputs]
    if not any(isinstance(t, torch.Tensor) and t.is_floating_point() for t in pytree.tree_leaves(outputs)):
        return "no output is of floating point"
    for number, leaves in enumerate(zip(*(pytree.tree_leaves(output) for output in outputs), strict=True)):
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        if not tensors or number in unread:
            continue
        if not bool(torch.isfinite(tensors[0]).all()):  # of other, larger inputs it may overflow
            return "an output is not finite"
        tensors = [t for t in tensors if t.numel() and bool(torch.isfinite(t).all())]
        if not tensors:
            return "an output is empty"
        scale = max(float(t.abs().max()) for t in tensors)
        if scale < 1e-6:
            return f"an output vanishes (at most {scale:.1e})"
        rows = [row for t in tensors for row in (t if t.dim() else t[None])]
        if number in apart:
            continue
        alike = [row for row in rows if row.shape == rows[0].shape]
        if len(alike) > 1 and max(float((row - alike[0]).abs().max()) for row in alike) < 1e-6 * scale:
            return "an output is the same for every input"
    return ""


def _in_parts(leaf: Any) -> Any:
    return parts(leaf) if isinstance(leaf, torch.Tensor) else leaf


def weights_that_matter(
    module: fx.GraphModule, probe: Inputs, touched: set[str], seen: Callable[[Any], Any] = lambda outputs: outputs
) -> Iterator[tuple[str, int]]:
    """The parameter and position of the largest |w dL/dw|, among those that growth made or replaced if there are any.

    Then that of the largest |dL/dw| among them, for what asks further: in a closed block the products are all zero, or
    are rounding alone (a router of equal experts). The gradients are those of the parameters' own dtype, of float32 at
    least, so that no wide copy is made. Where the model cannot be differentiated, the largest weights of a few of them:
    one or the other will matter.

    Args:
        module: the graph, in the mode that is meant; neither it nor its parameters are changed.
        probe: inputs; those of floating point are cast.
        touched: names of the parameters that growth made or replaced.
        seen: what is compared of the outputs.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.is_floating_point() or p.is_complex()}
    wanted = touched & parameters.keys()
    try:
        known = gradients(module, probe, wanted, seen)
        if not known:
            wanted = set(parameters)
            known = gradients(module, probe, wanted, seen)
        best = _largest({name: g.mul_(parameters[name].detach()) for name, g in known.items()})  # no second copy
        if best is not None and best[0] != 0:  # NaN, where infinities meet zeros, names a weight as well
            yield best[1:]
        steepest = _largest(gradients(module, probe, wanted, seen))
        if steepest is None:
            yield next(iter(parameters)), 0
        elif best is None or best[0] == 0 or steepest[1:] != best[1:]:
            yield steepest[1:]
    except Unsupported:
        first = sorted(parameters, key=lambda name: (name not in touched, -parameters[name].numel(), name))
        each = (_largest({name: parameters[name].detach()}) for name in first[:_TRIED])
        yield from (found[1:] for found in each if found is not None)


def gradients(
    module: fx.GraphModule, probe: Inputs, wanted: set[str], seen: Callable[[Any], Any] = lambda outputs: outputs
) -> dict[str, torch.Tensor]:
    """The gradients of some parameters for a random linear loss of all outputs; those that have none are left out.

    Raises:
        Unsupported: if an operator of the model has no derivative, or the graph refuses these inputs.
    """
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()}
    numbers = Numbers(torch.float64 if dtypes == {torch.float64} else torch.float32)
    twin, copies = own_parameters(module, numbers, wanted)
    with torch.enable_grad():
        args, kwargs = pytree.tree_map(lambda leaf: cast(leaf, numbers.dtype), probe)
        try:
            loss = random_loss(seen(twin(*args, **kwargs)))
        except (RuntimeError, ValueError) as error:  # a sum in whole numbers, or a check of values, which no run makes
            raise Unsupported(f"the model cannot be differentiated: {error}") from error
        found = pulled(loss, list(copies.values()))
    return {name: g for name, g in zip(copies, found, strict=True) if g is not None}


def pulled(loss: torch.Tensor, tensors: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """The gradients of a loss for some tensors, dense; None for all where the model stops every gradient.

    Raises:
        Unsupported: if an operator of the model has no derivative.
    """
    if not tensors or not loss.requires_grad:
        return (None,) * len(tensors)
    try:
        found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(loss, tensors, allow_unused=True)
    except RuntimeError as error:
        raise Unsupported(f"the model cannot be differentiated: {error}") from error
    return tuple(None if gradient is None else gradient.to_dense() for gradient in found)


def random_loss(outputs: Any) -> torch.Tensor:
    """The sum of all output elements, each times a normal number: the same numbers each time."""
    tensors = [_in_parts(t) for t in pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor)]
    leaves = [t for t in tensors if t.is_floating_point()]
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in leaves]
    return torch.stack([(t * draw).sum() for t, draw in zip(leaves, draws, strict=True)]).sum()


def own_parameters(
    module: fx.GraphModule, numbers: Numbers, wanted: set[str]
) -> tuple[fx.GraphModule, dict[str, torch.Tensor]]:
    """A graph without noise over converted tensors, leaves of autograd where they are wanted, and those by name."""
    twin = quiet(Editor(module).finish())
    numbers.name_in(twin.graph)
    twin.recompile()
    names = {id(p): name for name, p in module.named_parameters() if name in wanted}
    leaves: dict[int, torch.Tensor] = {}
    for part in twin.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if id(parameter) not in leaves:
                    leaves[id(parameter)] = numbers.of(parameter).detach().requires_grad_(id(parameter) in names)
                part._parameters[name] = leaves[id(parameter)]  # type: ignore[assignment]  # read like a parameter
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = numbers.of(buffer)
        follow_flat_weights(part)
    return twin, {name: leaves[key] for key, name in names.items()}


def _largest(values: Mapping[str, torch.Tensor]) -> tuple[float, str, int] | None:
    """The largest magnitude, the name of its tensor, and its position there."""
    best: tuple[float, str, int] | None = None
    for name, value in values.items():
        flat = value.reshape(-1).abs() if value.is_complex() else value.reshape(-1)
        top, bottom = int(flat.argmax()), int(flat.argmin())
        found = max((float(flat[top]), name, top), (-float(flat[bottom]), name, bottom))
        best = found if best is None else max(best, found)
    return best
