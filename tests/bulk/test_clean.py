"""gg.clean: growing and cleaning up returns the network from before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.ir.called import called_module
from graphgrow.models import MODELS
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.registry import pass_named
from tests.passes.claims import stirred
from tests.preserved import assert_same_bits

GROWTHS = {
    "resnet": [
        "widen(stem, extra=2)", "split(stages.0.0.conv1)", "deepen(stages.0.0, kind=copy)",
        "enlarge-kernel(stem, to=5)",
        "add-skip(relu, target=stages.0.0.relu1)", "swap-activation(relu, to=prelu)", "add-branch(stem)",
    ],
    "vit": [
        "add-heads(blocks.0.attention)", "deepen(blocks.0, kind=copy)", "widen(blocks.0.mlp.0, extra=3)",
        "swap-activation(blocks.0.mlp.1, to=silu)", "split(blocks.0.mlp.0, units=[0, 2])",
    ],
}  # fmt: skip


def traced(name: str) -> Graph:
    """A reference model in float64, with nothing in it that could go."""
    torch.manual_seed(0)
    model = stirred(MODELS[name].factory(width=8, depth=1)).double().eval()
    inputs = tuple(x.double() for x in MODELS[name].example())
    return gg.clean(gg.trace(model, inputs))


@pytest.mark.parametrize("name", GROWTHS)
def test_grow_then_clean(name: str) -> None:
    graph = traced(name)
    assert gg.clean(graph) is graph
    child = gg.apply(graph, GROWTHS[name], seed=3)
    back = gg.clean(child)
    assert back.text() == graph.text()
    assert_same_bits(back.module, graph.module)
    assert len(back.ledger) > len(child.ledger)
    verdict = gg.verify(child, back)
    assert verdict.preserved is True, str(verdict)
    assert_same_bits(replay(graph, back.ledger.entries[len(graph.ledger) :]).module, back.module)


def test_what_has_learned_stays() -> None:
    graph = traced("resnet")
    child = gg.apply(graph, "deepen(relu, kind=conv)")
    with torch.no_grad():
        for parameter in child.new_parameters():
            parameter.add_(0.01)
    assert gg.clean(child) is child


def test_batch_norms_are_folded_where_asked_for() -> None:
    graph = traced("resnet")
    folded = gg.clean(graph, fold=True)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.module.modules())
    verdict = gg.verify(graph, folded)
    assert (verdict.preserved, verdict.modes) == (True, ("eval",))


def test_the_optimizer_comes_along() -> None:
    graph = traced("vit")
    child = gg.apply(graph, GROWTHS["vit"])
    optimizer = torch.optim.AdamW(child.module.parameters())
    back = gg.clean(child, optimizer=optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in back.module.parameters()}


def test_each_kind_is_looked_for_once_for_all_that_it_takes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    blocks = (nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.0), nn.ReLU(), nn.Dropout(0.0)) for _ in range(4))
    graph = gg.trace(nn.Sequential(*blocks), torch.randn(2, 8))
    kind = pass_named("drop-identity")
    looked: list[Graph] = []
    sites = kind.sites

    def watched(network: Graph) -> object:
        looked.append(network)
        return sites(network)

    monkeypatch.setattr(kind, "sites", watched)
    back = gg.clean(graph)
    assert sum(entry.mutation.startswith("drop-identity") for entry in back.ledger) == 8
    assert len(looked) == 2  # when they go, and when nothing is left
    assert not [node for node in back.module.graph.nodes if "Dropout" in str(type(called_module(back.module, node)))]
    assert gg.verify(graph, back).preserved is True


def test_what_goes_with_another_is_passed_over() -> None:
    """Units that are listed as unread and as copies: the first sweep that takes them leaves the second nothing."""
    torch.manual_seed(0)
    first, last = nn.Linear(4, 6), nn.Linear(6, 3)
    with torch.no_grad():
        first.weight[4:] = first.weight[0]
        first.bias[4:] = first.bias[0]
        last.weight[:, 5] = 0.0
    graph = gg.trace(nn.Sequential(first, nn.ReLU(), last), torch.randn(2, 4))
    back = gg.clean(graph)
    assert back.module.get_parameter("0.weight").shape == (4, 4)
    assert gg.verify(graph, back).preserved is True
