"""Which module a node calls."""

from __future__ import annotations

from torch import fx, nn

from graphgrow.ir.called import called_module


def test_only_a_node_that_calls_a_module_has_one() -> None:
    module = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    found = [called_module(module, node) for node in module.graph.nodes]
    assert found == [None, module.get_submodule("0"), module.get_submodule("1"), None]
