"""States as JSON and tensors, without pickle: what goes in comes out, and what is damaged is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphgrow.errors import TrainingError
from graphgrow.train.packing import pack, unpack

STATE = {"step": 3, "groups": [{"betas": (0.9, 0.99), "lr": 1e-3, "fused": None}], 0: {"mean": torch.arange(3.0)}}


def test_a_state_comes_back_as_it_was() -> None:
    packed, tensors = pack(STATE)
    found = unpack(packed, tensors)
    assert torch.equal(found[0].pop("mean"), torch.arange(3.0))
    assert found == {**STATE, 0: {}}
    assert isinstance(found["groups"][0]["betas"], tuple)


@pytest.mark.parametrize(
    "damaged",
    [
        {"tensor": "nowhere"},
        {"tensor": 3},
        {"list": 3},
        {"dict": [[1]]},
        {"set": []},
        {},
        {"list": [], "tuple": []},
        [3],
    ],
    ids=str,
)
def test_a_damaged_state_is_refused(damaged: Any) -> None:
    with pytest.raises(TrainingError, match="a packed state is damaged"):
        unpack(damaged, {})


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(TrainingError, match=r"groups\.0 is of type set, which a checkpoint without pickle cannot hold"):
        pack({"groups": [{1, 2}]})
