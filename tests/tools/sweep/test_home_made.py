"""The models of the sweep that are written as at home: each is captured whole, and grows."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

import graphgrow as gg
from tools.sweep import home_made
from tools.sweep.home_made import build_home_made
from tools.sweep.home_made_classes import CLASSES
from tools.sweep.home_made_kinds import KINDS
from tools.sweep.home_made_recent import RECENT
from tools.sweep.home_made_structures import STRUCTURES
from tools.sweep.names import family_models
from tools.sweep.options import Options
from tools.sweep.subject import prepare


def test_they_are_a_family() -> None:
    assert family_models("home-made") == [f"home-made:{name}" for name in home_made.names()]
    assert len(home_made.names()) == len(home_made.MODELS) + len(CLASSES | KINDS | RECENT | STRUCTURES)
    with pytest.raises(gg.ModelError, match="there is no model 'home-made:nothing'"):
        prepare("home-made:nothing", Options())


@pytest.mark.parametrize("name", home_made.names())
def test_each_grows_and_answers_as_before(name: str) -> None:
    model, inputs = build_home_made(name, seed=1)
    graph = gg.trace(model.eval(), inputs)
    assert graph.modes == {"eval", "train"}
    first = next(iter(graph.mutations("widen")))
    child = gg.apply(graph, first)
    with torch.no_grad():
        before, after = pytree.tree_leaves(model(*inputs)), pytree.tree_leaves(child.module.eval()(*inputs))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(old, new, rtol=1e-4, atol=1e-5)
