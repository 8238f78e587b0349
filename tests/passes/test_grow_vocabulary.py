"""grow-vocabulary: old tokens are answered as before; a tied head gets logits for the new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models.gpt import GPT
from graphgrow.rules import Call, Value, axis_rule
from tests.ops.rules_kept import rules_kept
from tests.passes.claims import assert_reloads
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def language_model(tied: bool) -> Graph:
    torch.manual_seed(0)
    model = GPT(vocabulary=7, context=6, dim=8, depth=1, heads=2, hidden=16, tied=tied).eval()
    return gg.trace(model, torch.randint(0, 7, (2, 5)))


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_and_old_answers(tied: bool) -> None:
    graph = language_model(tied)
    child = gg.apply(graph, "grow-vocabulary(embed, extra=4)")
    logits = child.module(torch.randint(0, 7, (2, 5)))
    assert logits.shape == (2, 5, 11 if tied else 7)
    assert (child.module.get_parameter("head.weight") is child.module.get_parameter("embed.weight")) is tied
    embed: Any = child.module.get_submodule("embed")
    assert (embed.num_embeddings, tuple(embed.weight.shape)) == (11, (11, 8))
    old = graph.module.get_parameter("embed.weight")
    assert torch.equal(embed.weight[:7], old)
    assert 0.3 * old.std() < embed.weight[7:].std() < 3 * old.std()
    assert torch.isfinite(child.module(torch.tensor([[10, 8, 3]]))).all()
    assert_preserved(graph, child)
    verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved is True, str(verdict)


def test_a_head_of_its_own_grows_by_itself() -> None:
    graph = language_model(False)
    child = gg.apply(graph, ["grow-vocabulary(embed, extra=4)", "grow-outputs(head, extra=4)"])
    assert child.module(torch.tensor([[10, 8, 3]])).shape == (1, 3, 11)
    assert gg.verify(graph, child).preserved is True


def test_tokens_that_are_viewed_by_their_own_sizes_are_tokens() -> None:
    """As GPT-2 does: the ids are reshaped by sizes that are read off them; positions are counted."""

    def run(m: Any, x: torch.Tensor) -> Any:
        ids = x.view(-1, x.size(1))
        return m.out(m.tokens(ids) + m.places(torch.arange(ids.shape[1])))

    model = Forward(run, tokens=nn.Embedding(7, 4), places=nn.Embedding(6, 4), out=nn.Linear(4, 2))
    graph = gg.trace(model, torch.randint(0, 7, (2, 5)))
    assert [m.site_name for m in graph.mutations("grow-vocabulary")] == ["tokens"]
    assert [m.site_name for m in graph.mutations("grow-positions")] == ["places"]


def test_which_tables_are_offered() -> None:
    for tied in (False, True):
        graph = language_model(tied)
        assert [str(m) for m in graph.mutations("grow-vocabulary")] == ["grow-vocabulary(embed)"]
        assert [str(m) for m in graph.mutations("grow-positions")] == ["grow-positions(pos_embed, extra=6)"]


def test_refusals() -> None:
    graph = language_model(False)
    with pytest.raises(gg.MutationError, match="there are `embed`"):
        gg.apply(graph, "grow-vocabulary(pos_embed)")
    with pytest.raises(gg.MutationError, match="at least 1"):
        gg.apply(graph, "grow-vocabulary(embed, extra=0)")


USED_OTHERWISE: dict[str, tuple[Any, str]] = {
    "last row": (
        lambda m, x: m.e(x.argmax(-1)) + m.e.weight[-1:],
        "reads rows of `e.weight` by other positions than the first",
    ),
    "last of several rows": (
        lambda m, x: m.e(x.argmax(-1)) + m.e.weight[1:].sum(),
        "the rows of `e.weight` are cut into parts",
    ),
    "softmax of a tied head": (
        lambda m, x: (m.e(x.argmax(-1)) @ m.e.weight.t()).softmax(-1),
        "the rows are frozen: a softmax over it",
    ),
    "the input's own axis": (
        lambda m, x: m.e(x.argmax(-1)) @ m.e.weight.t() + x,
        "the rows are frozen: a model input",
    ),
}


@pytest.mark.parametrize("name", USED_OTHERWISE)
def test_rows_that_are_used_otherwise_stay(name: str) -> None:
    run, words = USED_OTHERWISE[name]
    graph = gg.trace(Forward(run, e=nn.Embedding(3, 4)), torch.randn(2, 5, 3))
    with pytest.raises(gg.Declined, match=words):
        gg.apply(graph, "grow-vocabulary(e)")
    assert len(graph.mutations("grow-vocabulary")) == 0


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_what_is_computed_from_all_rows_stays_what_it_was(how: str) -> None:
    """New rows hold the mean, or zero, so that the mean or the sum over all is the old one; else it is declined."""
    model = Forward(lambda m, x: m.e(x.argmax(-1)) + getattr(m.e.weight, how)(0), e=nn.Embedding(3, 4))
    graph = gg.trace(model.double(), torch.randn(2, 5, 3).double())
    try:
        child = gg.apply(graph, "grow-vocabulary(e, extra=2)")
    except gg.Declined:
        return
    assert child.module.get_parameter("e.weight").shape == (5, 4)
    assert_preserved(graph, child)


def test_saved_and_loaded(tmp_path: Path) -> None:
    assert_reloads(gg.apply(gg.trace("graphgrow:gpt"), "grow-vocabulary(embed, extra=3)"), tmp_path)


class Table(nn.Embedding):
    """A table whose rule, a user's own, says nothing of its rows."""


def test_a_table_of_which_its_rule_says_nothing_stays() -> None:
    with rules_kept():

        @axis_rule(Table)
        def rule(call: Call, x: Value) -> Value:
            return call.output([*x.axes, call.fixed(4, "no idea")])

        model = Forward(lambda m, x: m.b(m.e(x.argmax(-1))), e=Table(3, 4), b=nn.Linear(4, 2))
        graph = gg.trace(model, torch.randn(2, 5, 3))
        with pytest.raises(gg.Declined, match=r"nothing reads `e\.weight`"):
            gg.apply(graph, "grow-vocabulary(e)")
