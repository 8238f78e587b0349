"""Which nodes count in train mode alone, in a graph written by hand."""

from __future__ import annotations

import torch
from torch import fx, nn

from graphgrow.layers import ByMode
from graphgrow.planning.train_alone import in_train_alone


def test_what_is_read_in_eval_mode_too_or_goes_further_counts_in_both() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    drawn = graph.call_function(torch.rand_like, (x,))
    noise = graph.call_function(torch.mul, (drawn, 0.1))
    noisy = graph.call_function(torch.add, (x, noise))
    picked = graph.call_module("pick", (noisy, x))
    shared = graph.call_function(torch.rand_like, (picked,))
    both = graph.call_module("pick", (shared, shared))
    leaked = graph.call_function(torch.rand_like, (both,))
    evaluated = graph.call_function(torch.rand_like, (both,))
    last = graph.call_module("pick", (leaked, evaluated))
    graph.output((last, leaked))
    module = fx.GraphModule({"pick": ByMode()}, graph)
    assert in_train_alone(module.graph) == {
        node for node in module.graph.nodes if node.name in {drawn.name, noise.name, noisy.name}
    }


def test_a_value_that_nothing_reads_is_none_of_train_mode() -> None:
    graph = fx.Graph()
    graph.call_function(torch.rand, (3,))
    graph.output(graph.placeholder("x"))
    assert in_train_alone(fx.GraphModule(nn.Module(), graph).graph) == set()
