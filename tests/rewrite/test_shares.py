"""How copies are read is found for an optimizer's state alone: it takes longer than the growth, and more memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.rewrite.shares import Readers
from tools.bench.measuring import peak_bytes


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2048))


def test_how_copies_are_read_is_found_once_and_for_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, calls = model(), []
    original = Readers.add

    def noted(self: Readers, *args: Any) -> None:
        calls.append(args)
        original(self, *args)

    monkeypatch.setattr(Readers, "add", noted)
    graph = gg.trace(parent, torch.randn(4, 8))
    plain = gg.apply(graph, "split(0)")
    assert not calls
    optimizer = torch.optim.Adam(parent.parameters(), lr=0.0)
    parent(torch.randn(4, 8)).square().sum().backward()
    optimizer.step()
    grown = gg.apply(graph, "split(0)", optimizer=optimizer)
    assert len(calls) == 1
    for name, parameter in grown.module.named_parameters():
        assert torch.equal(parameter, plain.module.get_parameter(name))
    moment = optimizer.state[grown.module.get_parameter("0.bias")]["exp_avg"]
    assert not torch.equal(moment[:64], moment[64:])  # each copy's goes with its share


def test_a_split_takes_little_more_memory_than_what_it_makes() -> None:
    graph = gg.trace(model(), torch.randn(4, 8))
    made = gg.apply(graph, "split(0)").module.get_parameter("2.weight").nbytes
    peak = peak_bytes(lambda: gg.apply(graph, "split(0)"))
    assert peak < 3.2 * made  # the weights, and the old ones, their shares and what draws them, each half as large
