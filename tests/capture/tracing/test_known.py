"""Values in which no input has a part, against what the model itself computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from graphgrow.capture.tracing.known import known_value, memory_behind
from graphgrow.capture.tracing.tracer import ShapeTracer


class Runs(nn.Module):
    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3))
        self.weight = nn.Parameter(torch.ones(3))
        self.run, self.norm = run, nn.LayerNorm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


def _traced(run: Callable[[Any, torch.Tensor], torch.Tensor]) -> tuple[ShapeTracer, Any]:
    tracer = ShapeTracer({"x": torch.randn(2, 3)})
    graph = tracer.trace(Runs(run))
    (output,) = next(node for node in graph.nodes if node.op == "output").all_input_nodes
    return tracer, output


KNOWN: list[Callable[[Any, torch.Tensor], torch.Tensor]] = [
    lambda m, x: m.table.cumsum(0)[1].max(),
    lambda m, x: torch.arange(x.shape[1], device=x.device).float() / x.shape[0],
    lambda m, x: torch.ones(x.shape, dtype=x.dtype).triu(1).bool(),
    lambda m, x: torch.stack(m.table.unbind(0)).sum(0) > 3,
    lambda m, x: torch.full((2,), 0.5) * torch.tensor([1.0, 2.0]),
    lambda m, x: x.new_ones(x.shape[0], 3).triu(1).bool(),
    lambda m, x: torch.full_like(m.weight * x, 2.0) + x.new_tensor([0.5]),
]
UNKNOWN: list[Callable[[Any, torch.Tensor], torch.Tensor]] = [
    lambda m, x: x.sum(),
    lambda m, x: m.weight.sum(),
    lambda m, x: m.norm(m.table),
    lambda m, x: torch.rand(x.shape[0]) + m.table.sum(),
    lambda m, x: torch.zeros(x.shape[0]).fill_(1.0),
    lambda m, x: m.table.sum() * torch.nan,
    lambda m, x: x.new_ones(2, 3) * x,
    lambda m, x: torch.zeros_like(x) + m.weight,
]


@pytest.mark.parametrize("run", KNOWN)
def test_a_value_of_the_models_own_is_the_models(run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
    tracer, node = _traced(run)
    found = known_value(node, tracer)
    assert found is not None
    assert torch.equal(found, run(Runs(run), torch.zeros(2, 3)))


@pytest.mark.parametrize("run", UNKNOWN)
def test_inputs_parameters_chance_and_memory_that_was_overwritten_make_it_unknown(
    run: Callable[[Any, torch.Tensor], torch.Tensor],
) -> None:
    tracer, node = _traced(run)
    state = torch.get_rng_state()
    assert known_value(node, tracer) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_the_memory_behind_a_value_is_that_of_its_buffers() -> None:
    tracer, node = _traced(KNOWN[0])
    (fetched,) = (item for item in node.graph.nodes if item.op == "get_attr")
    assert memory_behind(node, tracer) == {fetched.meta["value"].untyped_storage()._cdata}
    tracer, node = _traced(KNOWN[4])
    assert not memory_behind(node, tracer)
