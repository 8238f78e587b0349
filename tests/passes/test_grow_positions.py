"""grow-positions: longer sequences can be read, shorter ones are answered as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.models.gpt import GPT
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def sliced() -> Graph:
    model = GPT(vocabulary=7, context=6, dim=8, depth=1, heads=2, hidden=16).eval()
    return gg.trace(model, torch.randint(0, 7, (2, 5)))


def counted() -> Graph:
    model = Forward(
        lambda m, x: m.out(m.tokens(x.argmax(-1)) + m.positions(torch.arange(x.shape[1], device=x.device))),
        tokens=nn.Embedding(3, 4), positions=nn.Embedding(6, 4), out=nn.Linear(4, 2),
    )  # fmt: skip
    return gg.trace(model.eval(), torch.randn(2, 5, 3))


BUILDS: list[tuple[Callable[[], Graph], str, str]] = [
    (sliced, "pos_embed", "pos_embed"),
    (counted, "positions", "positions.weight"),
]


@pytest.mark.parametrize(("build", "site", "name"), BUILDS)
def test_longer_sequences(build: Callable[[], Graph], site: str, name: str) -> None:
    graph = build()
    assert [str(m) for m in graph.mutations("grow-positions")] == [f"grow-positions({site}, extra=6)"]
    child = gg.apply(graph, f"grow-positions({site}, extra=3)")
    assert len(child.module.get_parameter(name)) == 9
    (x,), _ = graph.inputs.sample(1)
    longer = torch.cat([x, x[:, :4]], 1)
    with pytest.raises((RuntimeError, IndexError)):
        graph.module(longer)
    assert child.module(longer).shape[1] == 9
    assert torch.equal(child.module(x), graph.module(x))
    assert_preserved(graph, child)
    verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved is True, str(verdict)


def test_a_table_of_the_inputs_own_length_stays() -> None:
    graph = gg.trace(MODELS["vit"].factory().eval(), MODELS["vit"].example())
    assert len(graph.mutations("grow-positions")) == 0
    with pytest.raises(gg.MutationError, match="there are none"):
        gg.apply(graph, "grow-positions(pos_embed)")


def test_a_table_that_is_cut_from_behind_stays() -> None:
    graph = gg.trace(Forward(lambda m, x: x + m.p[-x.shape[1] :], p=torch.randn(6, 4)), torch.randn(2, 5, 4))
    assert len(graph.mutations("grow-positions")) == 0


def test_refusals() -> None:
    with pytest.raises(gg.MutationError, match="there are `pos_embed`"):
        gg.apply(sliced(), "grow-positions(embed)")
    with pytest.raises(gg.MutationError, match="at least 1"):
        gg.apply(sliced(), "grow-positions(pos_embed, extra=-1)")
