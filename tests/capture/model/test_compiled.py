"""Dynamo is loaded where something is compiled, and not for a trace by torch.fx."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from graphgrow.capture.model.compiled import dynamo_is_loaded, is_compiled
from graphgrow.capture.model.untouched import parameters_kept

SCRIPT = """
import sys
import torch
from torch import nn
from torch.nn import functional as F
import graphgrow as gg

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(8, 2)

    def forward(self, x):
        h = F.gelu(self.norm(self.first(x).exp().mT).mT)
        return self.last(torch.cat((h.mean(1), h.std(1)), 1))

model, x = Model(), torch.randn(5, 6, 3)
graph = gg.trace(model, x)
grown = gg.apply(graph, "widen(first, extra=1)")
assert gg.verify(graph, grown).preserved
print(*(name for name in ("torch._dynamo", "graphgrow.capture.dynamo.fallback") if name in sys.modules))
compiled = torch.compile(grown.module, backend="eager")
print(torch.equal(compiled(x), grown.module(x)))
compiled = gg.trace(torch.compile(model), x)
print(*(note for note in compiled.notes if "compiled" in note))
"""


def test_tracing_growing_and_verifying_load_no_dynamo() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded, compiles, note = done.stdout.splitlines()
    assert loaded == ""
    assert compiles == "True"  # it did not when Dynamo was loaded within a trace, among stand-ins for torch's own
    assert note.startswith("the model was compiled by torch.compile")


ASKING = """
import sys
from graphgrow.capture.model.compiled import before_dynamo

seen = []

def trace():
    seen.append("torch._dynamo" in sys.modules)
    try:
        import torch._dynamo
    except ImportError:
        return "without"
    return "with"

print(before_dynamo(trace), *seen)
"""


def test_what_asks_for_dynamo_in_a_trace_is_traced_anew_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", ASKING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["with", "False", "True"]


def test_what_is_compiled() -> None:
    model = nn.Linear(2, 2)
    assert not is_compiled(model)
    assert is_compiled(torch.compile(model))
    assert dynamo_is_loaded()


class Writing(nn.Module):
    """Writes into its parameter by an operator that is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.write = torch.compile(lambda tensor: tensor.mul_(2.0), backend="eager")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(self.weight)
        return x * self.weight


def test_parameters_are_kept_where_what_writes_is_compiled() -> None:
    model = Writing()
    with torch.no_grad(), parameters_kept(model):
        assert torch.equal(model(torch.ones(3)), torch.full((3,), 2.0))
    assert torch.equal(model.weight, torch.ones(3))
