"""Clean-ups that are exact for the present numbers: verified behind a head of zeros too, where only those are kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.rewrite.text import parse_mutation
from tests.rewrite.small_models import Forward

WHOLE = {"conv.weight", "conv.bias", "mid.weight"}
RESTING = {
    "drop-units": ("widen(conv, extra=2)", WHOLE),
    "merge-units": ("split(conv)", WHOLE),
    "shrink-kernel": ("enlarge-kernel(conv, to=5)", {"conv.weight"}),
    "settle-activation": ("swap-activation(act, to=gelu)", {"act.s"}),
    "settle-activation of a slope": ("swap-activation(act, to=prelu)", {"act.weight"}),
    "settle-operators": (
        "mix-operators(conv, choices=[conv-1])",
        {f"conv_mix_operators.choice.{name}" for name in ("alpha", "temperature", "anchor", "opened")},
    ),
    "drop-branch": (
        "deepen(act, kind=conv)",
        {"act_deepen.conv1.bias", "act_deepen.conv2.weight", "act_deepen.conv2.bias"},
    ),
    "drop-identity": ("deepen(act, kind=identity)", {"act_deepen.linear.weight", "act_deepen.linear.bias"}),
}


@pytest.mark.parametrize("name", RESTING)
def test_what_it_rests_on_is_kept_where_all_else_is_refilled(name: str) -> None:
    made, names = RESTING[name]
    model = Forward(
        lambda m, x: m.head(m.mid(m.act(m.conv(x)).mean(-1)).tanh()),
        conv=nn.Conv1d(3, 4, 3, padding=1), act=nn.ReLU(), mid=nn.Linear(4, 4), head=nn.Linear(4, 2),
    )  # fmt: skip
    nn.init.zeros_(model.get_parameter("head.weight"))
    graph = gg.apply(gg.trace(model, torch.randn(2, 3, 6)), made)
    text = str(graph.mutations(name.partition(" ")[0])[0])
    assert parse_mutation(text).rests_on(graph) == names
    verdict = gg.verify(graph, gg.apply(graph, text))
    assert verdict.preserved is True, str(verdict)
    assert "compared on refilled weights as well" in str(verdict)
