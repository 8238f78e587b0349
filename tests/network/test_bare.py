"""A network without its numbers: the same structure, nothing moved, the original as it was."""

from __future__ import annotations

import torch

import graphgrow as gg
from graphgrow.network.bare import without_data
from tests.preserved import assert_untouched, fingerprint


def test_structure_ties_and_modes_stay_and_the_numbers_do_not() -> None:
    graph = gg.trace("graphgrow:gpt")
    head = graph.module.get_submodule("head")
    head.requires_grad_(False)
    before = fingerprint(graph.module)
    bare = without_data(graph)
    assert_untouched(graph.module, before)
    assert type(bare) is type(graph)
    assert bare.text() == graph.text()
    mine, theirs = (dict(g.module.named_parameters(remove_duplicate=False)) for g in (graph, bare))
    assert [(n, p.shape, p.dtype, p.requires_grad) for n, p in mine.items()] == [
        (n, p.shape, p.dtype, p.requires_grad) for n, p in theirs.items()
    ]
    assert all(t.is_meta for t in [*bare.module.parameters(), *bare.module.buffers()])
    assert bare.parameter_count == graph.parameter_count
    assert bare.inputs.device == torch.device("meta")


def test_what_is_tied_stays_tied() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3))
    model[2].weight = model[0].weight
    bare = without_data(gg.trace(model, torch.zeros(2, 3)))
    assert bare.module.get_parameter("0.weight") is bare.module.get_parameter("2.weight")
