"""The tensors that a graph fetches: names by identity, and examples that share memory where their tensors do."""

from __future__ import annotations

import torch
from torch import nn

from graphgrow.capture.graphs.writes import storages_of
from graphgrow.capture.tracing.held import Held, Made


def test_a_shared_tensor_has_its_first_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    held = Held(model)
    assert held.name_of(model[2].weight) == "0.weight"
    assert held.name_of(model[1].running_mean) == "1.running_mean"
    assert held.name_of(model[0].weight.detach()) is None
    assert held.name_of(3) is None
    assert Held().name_of(model[0].weight) is None


def test_examples_share_memory_where_tensors_do() -> None:
    held, table = Held(), torch.arange(6.0).reshape(2, 3)
    whole, row, other = map(held.example_of, (table, table[1], torch.zeros(2, 3)))
    assert (whole.is_meta, whole.shape, whole.stride(), whole.dtype) == (True, (2, 3), (3, 1), torch.float32)
    assert (row.shape, row.storage_offset()) == ((3,), 3)
    assert storages_of(row) == storages_of(whole)
    assert storages_of(other) != storages_of(whole)
    assert held.example_of("nothing") == "nothing"


def test_each_state_of_a_tensor_that_the_forward_makes_has_a_name() -> None:
    made, tensor = Made(), torch.zeros(2)
    first = made.name_of(tensor)
    assert made.name_of(tensor) == first
    tensor.add_(1)
    second = made.name_of(tensor)
    assert second != first
    assert [made.constants[name].tolist() for name in (first, second)] == [[0.0, 0.0], [1.0, 1.0]]
    assert made.origin(first) is tensor
    assert made.origin("weight") is None
