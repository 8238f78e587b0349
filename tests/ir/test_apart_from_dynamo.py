"""Operators run without data load no Dynamo, and leave nothing behind where they asked for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
import torch
from graphgrow.ir.apart_from_dynamo import apart_from_dynamo

x = torch.empty(2, 3, device="meta")
loaded = lambda: "torch._dynamo.eval_frame" in sys.modules
"""


def said(script: str) -> list[str]:
    """The words that a fresh interpreter prints: what has loaded Dynamo once cannot show anything here."""
    done = subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_an_operator_runs_without_dynamo_and_is_shielded_from_it_later() -> None:
    script = """
import gc, types
with apart_from_dynamo():
    print(tuple(x.mean(1).shape) == (2,), loaded(), "torch._dynamo" in sys.modules)
functions = [item for item in gc.get_objects() if isinstance(item, types.FunctionType)]
told = sum("__dynamo_disable" in vars(function) for function in functions)
print("torch._dynamo" in sys.modules, "_dynamo" in vars(torch), told)
x.mean(1)  # by torch's own way, which loads it
print(loaded(), sum("__dynamo_disable" in vars(function) for function in functions) > 0)
"""
    assert said(script) == ["True", "False", "True", "False", "False", "0", "True", "True"]


@pytest.mark.parametrize(
    "wanted",
    ["torch._dynamo.is_compiling()", "__import__('torch._dynamo.eval_frame')"],
)
def test_who_asks_for_more_gets_dynamo_itself(wanted: str) -> None:
    script = f"""
import torch._compile
with apart_from_dynamo():
    x.mean(1)
    {wanted}
    print(loaded(), type(sys.modules["torch._dynamo"]).__name__)
print(torch.compile(torch.nn.ReLU(), backend="eager")(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0])
"""
    assert said(script) == ["True", "module", "True"]
