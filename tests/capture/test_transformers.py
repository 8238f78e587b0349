"""Small models of transformers: captured, called as they are, grown, verified."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.store.names import import_torchvision
from tools.sweep.small_transformers import build_small

import_torchvision()
pytest.importorskip("transformers")

HIDDEN = {"output_hidden_states": True}
GROWN = {
    "bert": ["widen(bert.encoder.layer.0.intermediate.dense, extra=4)", "deepen(bert.encoder.layer.0)"],
    "llama": ["widen(model.embed_tokens, extra=4)", "split(model.layers.0.mlp.gate_proj, units=[1])"],
    "vit": ["widen(vit.layers.0.mlp.fc1, extra=4)"],
    "mixtral": ["widen(model.layers.0.mlp.experts:0, extra=4)"],
}


def _leaves(answer: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", sorted(GROWN))
def test_a_family(name: str) -> None:
    model, inputs = build_small(name, num_hidden_layers=1)
    graph = gg.trace(model, (), inputs)
    assert graph.way == "fx"
    assert graph.modes == {"train", "eval"}
    assert set(graph.module.state_dict()) <= set(model.state_dict())
    options = {"use_cache": False} if "use_cache" in graph.inputs.kwargs else {}
    other = {key: torch.cat([value, value[:1]]) for key, value in inputs.items()}
    if "input_ids" in other:
        other = {key: value[:, :7] for key, value in other.items()}
    found, wanted = graph.module(**other), model(**other, **options)
    assert type(found) is type(wanted)
    assert len(_leaves(found)) == len(_leaves(wanted)) > 0
    assert all(torch.equal(a, b) for a, b in zip(_leaves(found), _leaves(wanted), strict=True))
    grown = gg.apply(graph, GROWN[name])
    verdict = gg.verify(graph, grown)
    assert verdict.preserved, str(verdict)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_hidden_states_are_traced_where_they_were_asked_for_before(name: str) -> None:
    """The first call leaves the library's hooks on the layers, which are no hooks of a user's."""
    model, inputs = build_small(name, num_hidden_layers=1)
    wanted = model(**inputs, **HIDDEN)
    graph = gg.trace(model, (), {**inputs, **HIDDEN})
    found = graph.module(**inputs, **HIDDEN)
    assert len(found.hidden_states) == len(wanted.hidden_states) == 2
    assert all(torch.equal(a, b) for a, b in zip(found.hidden_states, wanted.hidden_states, strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(_leaves(gg.trace(model, (), inputs).module(**inputs)), _leaves(model(**inputs)), strict=True)
    )
    grown = gg.apply(graph, GROWN[name][0])
    assert gg.verify(graph, grown).preserved
