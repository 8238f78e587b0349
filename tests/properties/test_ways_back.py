"""Growing and then cleaning up leads back to the architecture from before, where the growth has a way back."""

from __future__ import annotations

import random
from itertools import islice

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import fx
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.graph import Graph
from tests.effort import examples
from tests.preserved import Observed
from tests.properties.models import models

WAYS_BACK = (
    "widen", "split", "deepen", "add-branch", "add-skip", "add-heads", "enlarge-kernel", "swap-activation",
    "mix-operators",
)  # fmt: skip
SITES = 8  # of a pass that are looked at


def test_every_other_pass_has_none() -> None:
    """What changes the interface or is itself a clean-up; of experts, nothing shows that their answers agree."""
    clean_ups = {"settle-activation", "settle-operators", "drop-branch", "drop-identity", "shrink-kernel",
                 "merge-units", "drop-units", "fold-batch-norm"}  # fmt: skip
    assert set(gg.pass_names()) - clean_ups - set(WAYS_BACK) == {
        "grow-inputs", "grow-outputs", "grow-positions", "grow-vocabulary", "upcycle-experts",
    }  # fmt: skip


@pytest.mark.parametrize("way", WAYS_BACK)
@examples(4)
@given(data=st.data())
def test_the_way_back_of_one_growth(way: str, data: st.DataObject) -> None:
    base = gg.clean(gg.trace(*data.draw(models())))
    offered = list(islice(base.mutations(way), SITES))
    assume(offered)
    mutation = data.draw(st.sampled_from(offered))
    if data.draw(st.booleans()):
        varied = mutation.varied(base, random.Random(data.draw(st.integers(0, 99))))
        try:
            gg.apply(base, varied)
        except (gg.Declined, gg.MutationError):
            varied = mutation
        mutation = varied
    _assert_back(base, gg.apply(base, mutation, seed=1))


@examples(6)
@given(data=st.data())
def test_the_way_back_of_several(data: st.DataObject) -> None:
    base = gg.clean(gg.trace(*data.draw(models())))
    child = base
    for number in range(data.draw(st.integers(2, 5))):
        ways = data.draw(st.permutations(WAYS_BACK))
        offered = next(filter(None, (list(islice(child.mutations(way), SITES)) for way in ways)), [])
        assume(offered)
        child = gg.apply(child, data.draw(st.sampled_from(offered)), seed=number)
    _assert_back(base, child)


def _assert_back(base: Graph, child: Graph) -> None:
    """The shapes of all tensors, the operators and what they read, and the answers are those from before."""
    back = gg.clean(child)
    assert _shapes(back) == _shapes(base)
    assert _structure(back) == _structure(base)
    before, after = Observed(base), Observed(back)
    for mode in sorted(base.modes.intersection(*(step.exact_in for step in back.steps))):
        first, second = (side.answer(mode, base.inputs.sample(5, dtype=torch.float64)) for side in (before, after))
        for old, new in zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)


def _shapes(graph: Graph) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in graph.module.state_dict().items()}


def _structure(graph: Graph) -> list[tuple[str, str, list[str], str]]:
    """Each node: its name, its operator, what tensors it reads, its axes.

    Numbers are left to the answers: a size that growth has written out, or a scale, stays a number; a function that
    was swapped comes back as the layer of the same name.
    """
    axes = dict(line.partition(" = ")[::2] for line in graph.text().splitlines())
    return [
        (node.name, _word(graph, node), _tensors(node), axes[node.name].rpartition("): ")[2])
        for node in graph.module.graph.nodes
    ]


def _word(graph: Graph, node: fx.Node) -> str:
    if node.op == "call_module":
        name = type(graph.module.get_submodule(str(node.target))).__name__
    else:
        name = getattr(node.target, "__name__", str(node.target))
    return name.replace("_", "").lower()


def _tensors(node: fx.Node) -> list[str]:
    return [other.name for other in node.all_input_nodes if isinstance(other.meta["value"], torch.Tensor)]
