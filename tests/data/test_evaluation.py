"""Whether a model can answer what the data ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.data.evaluation import require_logits
from graphgrow.data.names import load_data
from graphgrow.errors import DataError


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(x), x


def test_a_model_has_an_output_for_each_class() -> None:
    data = load_data("digits")
    image = data.training.inputs[:2]
    require_logits(gg.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), image), "mine", data)
    with pytest.raises(DataError, match=r"mine has 9 outputs, but scikit-learn's digits, .* has 10 classes; give"):
        require_logits(gg.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), image), "mine", data)
    with pytest.raises(DataError, match="pairs does not return one tensor of logits"):
        require_logits(gg.trace(Two(), image), "pairs", data)
