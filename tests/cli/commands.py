"""Running the command line in this process, and small models for it."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn
from typer.testing import CliRunner, Result

from graphgrow.cli.main import app

MLP = "tests.cli.commands:mlp"
SHAPE = "--input=2,4"


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def fixed_batch() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Unflatten(0, (2, 1)))


class _Cumulative(nn.Module):
    """Calls an operator without an axis rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.special.bessel_j0(self.first(x)))
        return result


def without_a_rule() -> nn.Module:
    return _Cumulative()


def broken() -> nn.Module:
    raise ZeroDivisionError("a defect of the factory")


def call(*arguments: object, code: int = 0) -> Result:
    """Run a command and check its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})
    assert result.exit_code == code, result.output
    return result


def json_of(*arguments: object, code: int = 0) -> Any:
    """What a command prints with --json; nothing else may be on standard output."""
    return json.loads(call(*arguments, "--json", code=code).stdout)
