"""gg.trace and gg.replay: from a model, or its name, to a graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from graphgrow.capture.trace import capture
from graphgrow.errors import CaptureError
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.rewrite.apply import replay as replay_entries
from graphgrow.store.names import KNOWN_SOURCES, build

_TOLD = 4  # names in a note


def trace(
    model: nn.Module | str,
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
    way: str = "auto",
    budget_s: float | None = None,
) -> Graph:
    """Capture a model into a graph that can be inspected and grown.

        graph = gg.trace(model, torch.randn(2, 3, 32, 32))
        graph = gg.trace("graphgrow:gpt")  # by name, with example inputs of its own

    The graph shares the model's parameters and buffers: training one trains the other. Its modules are shallow
    copies, so that train() and eval() are its own. The model itself is not changed. A forward that goes
    another way in the other mode and comes back is one graph; where it does not come back, the graph holds for the
    present mode alone: a warning says so, and in the other mode it refuses to run (`ModeError`).

    Args:
        model: a module, or a name: `graphgrow:resnet`, `torchvision:resnet18`, `timm:resnet18`,
            `package.module:factory`.
        args: example inputs, a tensor or a tuple; a model named otherwise than by its factory has its own.
        kwargs: example keyword inputs.
        leaves: module classes or module paths that stay one node; what they touch cannot grow.
        way: "fx" or "dynamo" to capture with that one; "auto" tries torch.fx, then Dynamo.
        budget_s: seconds after which no further step of the capture begins; a trace by torch.fx ends at its next
            operator, a recording by Dynamo at its next line. One call of the model itself is not interrupted. None for
            no limit, but for 300 s of processor time for each recording by Dynamo; `math.inf` for none at all.

    Raises:
        TimeBudgetError: if the steps take longer than that; says which took how long.
        CaptureError: if the model cannot be captured or the inputs do not fit; names the place in its code.
        ModelError: if there is no model of that name.
    """
    base = None
    if isinstance(model, str):
        name = model
        model, example, named = build(name)
        if args is None and kwargs is None:
            args, kwargs = example, named or None
        base = name if name.partition(":")[0] in KNOWN_SOURCES else None
    if args is None and kwargs is None:
        raise CaptureError("gg.trace wants example inputs: gg.trace(model, torch.randn(2, 3, 224, 224))")
    found = capture(model, () if args is None else args, kwargs, leaves, way, budget_s)
    if len(found.modes) == 1:
        (mode,), other = found.modes, "train" if "eval" in found.modes else "eval"
        warnings.warn(
            f"this graph of {type(model).__name__} holds for {mode} mode alone, and refuses to run after .{other}(); "
            f"call model.{other}() before gg.trace where {other} mode is wanted",
            stacklevel=2,
        )
    notes = (*found.notes, *_left_out(model, found.module))
    return Graph(
        found.module, found.inputs, way=found.way, modes=found.modes, notes=notes, base=base, answers=found.answers
    )


def _left_out(model: nn.Module, module: nn.Module) -> tuple[str, ...]:
    """A note on the parameters that the graph lacks: weights of a loss, say, that stands outside of the forward."""
    kept = {id(parameter) for parameter in module.parameters()}
    names = [f"`{name}`" for name, parameter in model.named_parameters() if id(parameter) not in kept]
    if not names:
        return ()
    told = ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")
    return (f"the forward does not use {told}: the graph has no such parameters, and they stay with the model",)


def replay(
    model: nn.Module | str,
    args: Any,
    ledger: Ledger,
    kwargs: dict[str, Any] | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
    way: str = "auto",
) -> Graph:
    """Capture a base model, as `gg.trace` does, and apply a ledger to it.

        again = gg.replay(model, torch.randn(2, 3, 32, 32), grown.ledger)

    The structure is always that of the first time; so are the numbers, to the bit, where the base has the same
    weights and nothing was trained in between.

    Raises:
        LedgerError, CaptureError, Declined: as reading, capturing and applying do.
    """
    return replay_entries(trace(model, args, kwargs, leaves, way), ledger)
