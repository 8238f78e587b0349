"""Decisions by whether a batch has one sample, which part nothing: `if batch != positions.shape[0]: expand(...)`.

What such a branch does to shapes, broadcasting does as well. A traced graph holds one side of it; where it was seen to
answer as the model does on the other side too, it need not refuse that.
"""

from __future__ import annotations

import contextlib
import io
import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.model.agreement import disagreement
from graphgrow.capture.model.running import run_in_eval, run_in_train
from graphgrow.layers import require_decision

Example = tuple[tuple[Any, ...], dict[str, Any]]
_SEVERAL = (2, 3)  # what a batch of one is compared at


def drop_idle_checks(
    module: fx.GraphModule, model: nn.Module, example: Example, modes: Collection[str], restore: Callable[[], None]
) -> None:
    """Take out the checks that part a batch of one from others, where graph and model agree on both sides of them.

    Such a check compares the batch with a number that is one at every size of it. At other sizes the model then decides
    as it did where they were compared, as long as that number is one: where it is computed, this is checked instead.

    Args:
        module: the graph, which loses the checks.
        model: that it was traced from.
        example: of its inputs; axis 0 of the first tensor, and of all that have as many rows, is the batch.
        modes: of the graph.
        restore: puts back what a call of the model has changed.
    """
    checks = [node for node in module.graph.nodes if node.target is require_decision and _parts_single(node)]
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, torch.Tensor) and leaf.dim()]
    if not checks or not tensors:
        return
    batch = int(tensors[0].shape[0])
    seen: list[list[tuple[int, int]]] = [[] for _ in checks]

    def note(number: int, first: int, second: int) -> None:
        seen[number].append((int(first), int(second)))

    notes = [_replaced(module.graph, check, note, number) for number, check in enumerate(checks)]
    module.recompile()
    runs = [(rows, mode) for rows in (batch, *((1,) if batch > 1 else _SEVERAL)) for mode in modes]
    idle = all(_agree(module, model, _resized(example, batch, rows), mode, restore) for rows, mode in runs)
    for pairs, (check, compared, noted) in zip(seen, notes, strict=True):
        single = _single(pairs, [rows for rows, _ in runs]) if idle else None
        if single is not None and compared.args[single] == 1:
            module.graph.erase_node(check)
        else:
            noted.prepend(check)
            if single is not None:
                with module.graph.inserting_before(check):
                    check.update_arg(0, module.graph.call_function(operator.eq, (compared.args[single], 1)))
                check.update_arg(1, True)
        module.graph.erase_node(noted)
        if not compared.users:
            module.graph.erase_node(compared)
    module.recompile()


def _single(pairs: list[tuple[int, int]], rows: list[int]) -> int | None:
    """Which of two numbers that were compared in some runs was one in each, where the other was that of the rows."""
    return next((i for i in (1, 0) if [(pair[1 - i], pair[i]) for pair in pairs] == [(n, 1) for n in rows]), None)


def _parts_single(check: fx.Node) -> bool:
    compared = check.args[0]
    return isinstance(compared, fx.Node) and compared.target in (operator.eq, operator.ne)


def _replaced(graph: fx.Graph, check: fx.Node, note: Callable[..., None], number: int) -> tuple[fx.Node, ...]:
    """The check, out of the graph, the comparison that it asks for, and the node that notes the numbers instead."""
    compared = check.args[0]
    assert isinstance(compared, fx.Node)
    with graph.inserting_before(check):
        noted = graph.call_function(note, (number, *compared.args))
    check._remove_from_list()
    return check, compared, noted


def _resized(example: Example, batch: int, rows: int) -> Example:
    def resize(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.dim() or leaf.shape[0] != batch or rows == batch:
            return leaf
        return leaf.index_select(0, torch.arange(rows, device=leaf.device) % batch)

    resized: Example = pytree.tree_map(resize, example)
    return resized


def _agree(module: nn.Module, model: nn.Module, example: Example, mode: str, restore: Callable[[], None]) -> bool:
    run = run_in_train if mode == "train" else run_in_eval
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # fx tells every error of a graph there too
            return not disagreement(model, run(module, *example), run(model, *example))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return False  # a size that one of them does not take
    finally:
        restore()
