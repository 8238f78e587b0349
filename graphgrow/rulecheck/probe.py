"""Probes: tiny models that hold one operator between bare parameters and sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

Draw = Callable[[int, int], int]  # a whole number between two others, both included


class Probe(nn.Module):
    """One operator between bare parameters and sums.

    Args:
        run: applies the operator to the probe's parameters and modules.
        modules: by attribute name.
        sources: the parameters by attribute name; the first one is the operand that tables speak of.
    """

    def __init__(
        self,
        run: Callable[[Any], Any],
        sources: Mapping[str, torch.Tensor],
        modules: Mapping[str, nn.Module] | None = None,
        buffers: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, tensor in sources.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        for name, tensor in (buffers or {}).items():
            self.register_buffer(name, tensor)
        for name, module in (modules or {}).items():
            self.add_module(name, module.double())
        self._run = run

    def forward(self, ticket: torch.Tensor) -> Any:
        """`ticket` is an input that nothing depends on: a graph must have one."""
        outputs = self._run(self)
        if isinstance(outputs, fx.Proxy) and isinstance(outputs.node.meta["value"], (tuple, list)):
            outputs = list(outputs)
        observed = [out.sum() for out in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]
        return ticket, observed


def normal_tensor(draw: Draw, *shape: int) -> torch.Tensor:
    """Standard normal entries in float64, from a drawn seed."""
    generator = torch.Generator().manual_seed(draw(0, 10**6))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def op(target: Any, first: Any, *rest: Any, **options: Any) -> Any:
    """Apply a function, or a method by its name; under a trace, as a node of exactly this target.

    torch.fx records many functions as others (F.tanh as the method, operator.iadd as operator.add), while other
    ways of capture keep them, and their rules must be right all the same.
    """
    if isinstance(first, fx.Proxy):
        kind = "call_method" if isinstance(target, str) else "call_function"
        return first.tracer.create_proxy(kind, target, (first, *rest), options)
    return getattr(first, target)(*rest, **options) if isinstance(target, str) else target(first, *rest, **options)
