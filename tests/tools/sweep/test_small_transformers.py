"""The registry of small transformers: names, and inputs that are the same each time."""

from __future__ import annotations

import pytest
import torch

from graphgrow.errors import ModelError
from tools.sweep.names import family_models
from tools.sweep.small_transformers import FAMILIES, build_small


def test_forty_families_by_name() -> None:
    assert len(FAMILIES) >= 40
    assert "transformers:llama" in family_models("transformers")
    with pytest.raises(ModelError, match="there is no transformers:lama; there are albert"):
        build_small("lama")


def test_inputs_are_drawn_from_the_seed() -> None:
    for family in FAMILIES.values():
        first, second = (family.inputs(torch.Generator().manual_seed(3)) for _ in range(2))
        assert first
        assert all(torch.equal(value, second[key]) for key, value in first.items())
