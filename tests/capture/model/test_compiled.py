"""Dynamo is loaded where something is compiled, and not for a trace by torch.fx."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from graphgrow.capture.model.compiled import dynamo_is_loaded, is_compiled
from graphgrow.capture.model.untouched import parameters_kept

SCRIPT = """
import sys
import torch
import graphgrow as gg

model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
graph = gg.trace(model, torch.randn(5, 3))
grown = gg.apply(graph, "widen(0, extra=1)")
assert gg.verify(graph, grown).preserved
print(*(name for name in ("torch._dynamo", "graphgrow.capture.dynamo.fallback") if name in sys.modules))
compiled = gg.trace(torch.compile(model), torch.randn(5, 3))
print(*(note for note in compiled.notes if "compiled" in note))
"""


def test_tracing_growing_and_verifying_load_no_dynamo() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded, note = done.stdout.splitlines()
    assert loaded == ""
    assert note.startswith("the model was compiled by torch.compile")


@pytest.mark.parametrize("forward", ["x.mean(1)", "_tried(x)"])
def test_dynamo_is_not_loaded_among_stand_ins(forward: str) -> None:
    """It kept those of torch.finfo and torch.iinfo as classes of constants: nothing could be compiled afterwards."""
    script = AFTERWARDS.replace("FORWARD", forward)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "fx"]


AFTERWARDS = """
import torch
from torch import nn
import graphgrow as gg

def _tried(x):
    try:
        return x.mean(1)
    except Exception:
        return x[:, 0]

class Model(nn.Module):
    def forward(self, x):
        return FORWARD

x = torch.arange(6.0).reshape(2, 3)
graph = gg.trace(Model(), x)
print(torch.equal(graph.module(x), x.mean(1)))
compiled = torch.compile(nn.Conv1d(2, 2, 1), backend="eager")
print(compiled(x[None]).shape == (1, 2, 3), graph.way)
"""


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
