"""Whose line it is: the model's, not torch's, and not that of who captures it."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import require_decision


def _decides(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x if x.shape[0] > 1 else -x


@pytest.mark.parametrize("package", ["torchvision", "torch"])
def test_the_line_is_the_models_own_and_never_that_of_who_captures_it(package: str) -> None:
    """Swin's decisions were blamed on whoever captured it, so that a replay from elsewhere had another text."""
    file = Path(torch.__file__).parent.with_name(package) / "model.py"
    forward = FunctionType(_decides.__code__.replace(co_filename=str(file)), globals())
    graph = gg.trace(type("Model", (nn.Module,), {"forward": forward})(), torch.ones(2, 3), way="fx")
    (checked,) = [node for node in graph.module.graph.nodes if node.target is require_decision]
    assert str(checked.args[2]).startswith("model.py:")
