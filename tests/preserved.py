"""Whether a grown graph still computes what its parent does, without help from the library's own verification."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.graph import Graph
from graphgrow.ir.positions import positions_along
from graphgrow.layers import ScaledDotProductAttention

TOLERANCE = 1e-10  # relative to the largest output, in float64, end to end


class Observed:
    """A graph's own copy in float64 without dropout, and what it answers in each mode."""

    def __init__(self, graph: Graph) -> None:
        self._module = copy.deepcopy(graph.module).double()
        for inner in self._module.modules():
            if isinstance(inner, (nn.Dropout, nn.Dropout2d)):
                inner.p = 0.0
            if isinstance(inner, ScaledDotProductAttention):
                inner.dropout_p = 0.0
        self._known: dict[tuple[Any, ...], tuple[Any, dict[str, torch.Tensor]]] = {}

    def answer(self, mode: str, inputs: Any, key: tuple[Any, ...] | None = None) -> tuple[Any, dict[str, torch.Tensor]]:
        """Outputs, and the buffers afterwards; run once for each `key`, if there is one."""
        if key is not None and (mode, *key) in self._known:
            return self._known[mode, *key]
        before = {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        torch.default_generator.manual_seed(3)
        with torch.no_grad():
            outputs = self._module.train(mode == "train")(*inputs[0], **inputs[1])
            buffers = {name: buffer.clone() for name, buffer in self._module.named_buffers()}
            for name, buffer in self._module.named_buffers():
                buffer.copy_(before[name])
        if key is not None:
            self._known[mode, *key] = outputs, buffers
        return outputs, buffers


def assert_preserved(
    before: Graph,
    after: Graph,
    seed: int = 0,
    batch_sizes: tuple[int | None, ...] = (None,),
    seen: tuple[Observed, Observed] | None = None,
) -> None:
    """Outputs agree in eval mode, and in train mode with its buffers where the last step claims that.

    Dropout is off in train mode: it draws a mask of another size. Old units of buffers are compared with `steps`.
    `seen` are copies of both from before, to be used again.
    """
    step = after.steps[-1]
    assert "eval" in step.exact_in
    parent, child = seen or (Observed(before), Observed(after))
    for mode in sorted(step.exact_in & before.modes):
        for batch_size in batch_sizes:
            given, key = after.inputs.sample(seed, batch_size, dtype=torch.float64), (seed, batch_size)
            old = parent.answer(mode, _old_units(given, step.inputs), None if step.inputs else key)
            outputs, grown = child.answer(mode, given, key)
            _assert_equal(old[0], _old_units(outputs, step.outputs), f"outputs in {mode} mode")
            for name, buffer in old[1].items():
                if name not in grown:  # a clean-up took its module away
                    continue
                now = grown[name]
                for axis, kept in step.tensors.get(name, {}).items():
                    now = now.index_select(axis, kept[kept >= 0])
                    buffer = buffer.index_select(axis, torch.nonzero(kept >= 0).flatten())
                _assert_equal(buffer, now, f"buffer {name} in {mode} mode")


def _old_units(tree: Any, places: Any) -> Any:
    """Nested tensors without what the last step appended to the model's interface."""
    leaves, structure = pytree.tree_flatten(tree)
    for number, axes in places.items():
        for axis, kept in axes.items():
            leaves[int(number)] = leaves[int(number)].index_select(
                axis, positions_along(kept, leaves[int(number)].shape[axis])
            )
    return pytree.tree_unflatten(leaves, structure)


def _assert_equal(old: Any, new: Any, what: str) -> None:
    left, right = pytree.tree_leaves(old), pytree.tree_leaves(new)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, torch.Tensor):
            assert a == b, what
            continue
        assert a.shape == b.shape, what
        wide = torch.promote_types(a.dtype, torch.float64)  # complex numbers stay complex
        error = (a.to(wide) - b.to(wide)).abs()
        limit = TOLERANCE * (1 + float(a.to(wide).abs().max()))
        assert bool((error <= limit).all()), f"{what} differ by {float(error.max()):.3g}, {limit:.3g} is allowed"


def assert_same_bits(a: nn.Module, b: nn.Module) -> None:
    """All parameters and buffers under the same names with the same bits."""
    left, right = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (a, b))
    assert list(left) == list(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


def fingerprint(module: nn.Module) -> list[tuple[str, int, torch.Tensor]]:
    """Names, identities and copies of all tensors, to see later that nothing was written."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return [(name, id(tensor), tensor.detach().clone()) for name, tensor in tensors]


def assert_untouched(module: nn.Module, before: list[tuple[str, int, torch.Tensor]]) -> None:
    """The module still has those tensors, with those values."""
    now = fingerprint(module)
    assert [(name, number) for name, number, _ in now] == [(name, number) for name, number, _ in before]
    assert all(torch.equal(a, b) for (_, _, a), (_, _, b) in zip(now, before, strict=True))
