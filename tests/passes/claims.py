"""What every pass claims, as assertions: the same function to the bit, new weights that learn, a parent left alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.rewrite.apply import replay
from tests.preserved import assert_same_bits, assert_untouched, fingerprint

SCALES = (0.0, 1.0, 1e4, -1e18)


def grown(graph: Graph, text: str, seed: int = 0, **options: Any) -> Graph:
    """Apply a mutation, which prints as that text, replays to the bit, and changes neither parent nor random state.

    What it did not touch is shared with the parent by identity, buffers are the child's own.
    """
    assert str(gg.parse_mutation(text)) == text
    parent, words, random = fingerprint(graph.module), graph.text(), torch.get_rng_state()
    child = gg.apply(graph, text, seed, **options)
    entries = child.ledger.entries[len(graph.ledger) :]
    assert [entry.mutation for entry in entries] == [text]
    again = replay(graph, entries)
    assert_same_bits(again.module, child.module)
    assert again.text() == child.text()
    assert_untouched(graph.module, parent)
    assert graph.text() == words
    assert torch.equal(torch.get_rng_state(), random)
    if options.get("share", True):
        touched, now = set(child.steps[-1].touched), dict(child.module.named_parameters())
        for name, parameter in graph.module.named_parameters():
            assert name in touched or name not in now or now[name] is parameter, name
    mine, theirs = ({id(b) for b in side.module.buffers()} for side in (graph, child))
    assert not mine & theirs
    return child


def assert_exact(
    before: Graph,
    after: Graph,
    scales: Sequence[float] = SCALES,
    sizes: Sequence[tuple[int, ...]] = (),
    batches: Sequence[int] = (1, 2, 3),
    tolerance: float = 0.0,
) -> None:
    """In float64 and both modes: outputs, and buffers after the step, agree to the bit or within the tolerance.

    Args:
        before: the parent.
        after: the child.
        scales: of normal inputs; where the parent is not finite, nothing is asked.
        sizes: shapes without the batch axis, of a model with one input, instead of the example's.
        batches: batch sizes.
        tolerance: relative to the largest element.
    """
    for training in (False, True):
        for scale in scales:
            for batch in batches:
                for size in sizes or (None,):
                    _assert_one(before, after, training, scale, batch, size, tolerance)


def _assert_one(
    before: Graph,
    after: Graph,
    training: bool,
    scale: float,
    batch: int,
    size: tuple[int, ...] | None,
    tolerance: float,
) -> None:
    args, kwargs = before.inputs.sample(batch, batch, torch.float64)
    if size is not None:
        args = (torch.randn(batch, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(batch)),)
    args = pytree.tree_map(lambda x: x * scale if isinstance(x, torch.Tensor) and x.is_floating_point() else x, args)
    sides = [copy.deepcopy(side.module).double().train(training) for side in (before, after)]
    with torch.no_grad():
        outputs = [pytree.tree_leaves(side(*args, **kwargs)) for side in sides]
    what = f"training={training} scale={scale} batch={batch} size={size}"
    if not all(bool(t.isfinite().all()) for t in outputs[0]):
        return
    for mine, theirs in zip(*outputs, strict=True):
        assert_equal(mine, theirs, tolerance, what)
    now = dict(sides[1].named_buffers())
    for name, buffer in sides[0].named_buffers():
        if name in now:  # else a clean-up took its module away
            assert_equal(buffer, now[name], tolerance, f"{name} {what}")


def assert_equal(mine: torch.Tensor, theirs: torch.Tensor, tolerance: float, what: str) -> None:
    """Equal shapes, and elements within the tolerance of the largest one; 0.0 and -0.0 are equal."""
    assert mine.shape == theirs.shape, what
    limit = tolerance * float(mine.detach().double().abs().max()) if mine.numel() else 0.0
    error = (mine.double() - theirs.double()).abs()
    assert bool((error <= limit).all()), f"off by {float(error.max()):.3g} where {limit:.3g} is allowed: {what}"


def assert_narrow(build: Any, example: torch.Tensor, text: str, dtype: torch.dtype) -> None:
    """A model of half precision: the child is of the same dtype, and computes the same bits."""
    graph = gg.trace(build().to(dtype).eval(), example.to(dtype))
    child = grown(graph, text)
    assert {p.dtype for p in child.module.parameters()} == {dtype}
    with torch.no_grad():
        x = example.to(dtype)
        assert_equal(graph.module(x), child.module(x), 0.0, str(dtype))


def gradients(module: nn.Module, args: Any) -> dict[str, torch.Tensor]:
    """The gradient of each parameter, for a loss that depends on every output element."""
    module.zero_grad()
    leaves = [t for t in pytree.tree_leaves(module(*args)) if t.is_floating_point()]
    uneven = [t * torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype).reshape(t.shape) for t in leaves]
    torch.stack([t.square().sum() for t in uneven]).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_alive(before: Graph, after: Graph) -> set[str]:
    """Every new parameter has a gradient within two steps, at least one at the first; the old ones' are unchanged.

    Returns:
        The names of the new parameters.
    """
    old = {id(p) for p in before.module.parameters()}
    module = copy.deepcopy(after.module).double().train()
    new = {name for name, p in after.module.named_parameters() if id(p) not in old}
    assert {id(p) for p in after.new_parameters()} >= {id(after.module.get_parameter(name)) for name in new}
    assert new
    args, _ = after.inputs.sample(5, 4, torch.float64)
    expected = gradients(copy.deepcopy(before.module).double().train(), args)
    found = gradients(module, args)
    for name, gradient in expected.items():
        if name in found and found[name].shape == gradient.shape:
            assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name
    moving = {name for name in new if _moves(found[name])}
    assert moving
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    optimizer.step()
    again = gradients(module, args)
    assert {name for name in new if _moves(again[name])} | moving == new
    return new


def _moves(gradient: torch.Tensor) -> bool:
    return float(gradient.abs().max()) > 1e-9


def assert_exports(graph: Graph, folder: Path) -> None:
    """onnxruntime computes what the float64 module does, also for batch sizes that are not the example's."""
    gg.export_onnx(graph, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    wide = copy.deepcopy(graph.module).double().eval()
    for batch in (1, 2, 5):
        (x,), _ = graph.inputs.sample(7, batch)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            expected = wide(x.double()).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * (1 + np.abs(expected).max())


def assert_reloads(graph: Graph, folder: Path) -> None:
    """Saved and loaded, with every parameter moved since: the same bits, the same structure."""
    with torch.no_grad():
        for parameter in graph.module.parameters():
            parameter.add_(torch.full_like(parameter, 0.01))
    loaded = gg.load(gg.save(graph, folder))
    assert_same_bits(loaded.module, graph.module)
    assert loaded.text() == graph.text()
    assert loaded.ledger == graph.ledger


def stirred(model: nn.Module) -> nn.Module:
    """Norms with parameters and statistics that are not trivial."""
    for part in model.modules():
        if "Norm" in type(part).__name__:
            for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return model
