"""drop-branch: what is added and is zero goes, with all that only it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, assert_reloads, grown, stirred
from tests.preserved import assert_same_bits
from tests.rewrite.small_models import Forward

GROWTHS = {
    "resnet": [
        "deepen(relu, kind=conv)", "deepen(stages.0.1, kind=copy)", "add-branch(stem)", "add-branch(head)",
        "add-skip(relu, target=stages.0.1.relu1)", "add-skip(relu, target=stages.1.0.relu2)",
        "add-branch(stages.0.0.conv1, kind=depthwise)", "add-branch(stages.0.0.conv1, kind=identity)",
    ],
    "vit": [
        "deepen(blocks.0, kind=copy)", "deepen(blocks.1, kind=attention)", "deepen(blocks.0, kind=mlp)",
        "add-branch(blocks.0.mlp.0, kind=low-rank)",
    ],
    "gpt": ["deepen(blocks.0, kind=copy)", "deepen(blocks.0.attention, kind=copy)"],
}  # fmt: skip


def traced(name: str) -> Graph:
    torch.manual_seed(0)
    model = stirred(MODELS[name].factory(depth=2)).double().eval()
    inputs = MODELS[name].example()
    return gg.trace(model, tuple(x.double() if x.is_floating_point() else x for x in inputs))


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GROWTHS.items() for text in texts])
def test_what_was_put_in_goes_again(name: str, text: str) -> None:
    graph = traced(name)
    child = gg.apply(graph, text, seed=1)
    back = child
    for _ in range(4):
        found = [*back.mutations("drop-branch")] or [m for m in back.mutations("drop-identity") if "_deepen" in str(m)]
        if not found:
            break
        parent, back = back, grown(back, str(found[0]))
        assert_exact(parent, back, batches=(2,), scales=(1.0,))
    assert back.text() == graph.text()
    assert_same_bits(back.module, graph.module)
    assert [name for name, _ in back.module.named_modules()] == [name for name, _ in graph.module.named_modules()]


def test_verified_alone_and_together_with_its_growth() -> None:
    graph = traced("vit")
    child = gg.apply(graph, "deepen(blocks.0, kind=copy)")
    texts = [str(m) for m in child.mutations("drop-branch")]
    assert texts == ["drop-branch(blocks.0_deepen:add)", "drop-branch(blocks.0_deepen:add@2)"]
    back = gg.apply(child, texts[::-1])
    assert gg.verify(child, back).preserved is True
    assert gg.verify(graph, back).preserved is True


def test_an_opened_branch_stays() -> None:
    child = gg.apply(traced("resnet"), "deepen(relu, kind=conv)")
    with torch.no_grad():
        child.module.get_parameter("relu_deepen.conv2.weight")[0, 0, 0, 0] = 1e-30
    assert len(child.mutations("drop-branch")) == 0
    assert any("relu_deepen:add: neither operand" in str(r) for r in child.mutations("drop-branch").refusals)
    with pytest.raises(gg.Declined, match="a weight on its way differs from zero"):
        gg.apply(child, "drop-branch(relu_deepen:add)")


def around(run: Any, **members: Any) -> Graph:
    model = Forward(run, **members).double()
    return gg.trace(model, torch.randn(2, 3).double())


def zero(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def test_either_operand_and_a_layer_scale() -> None:
    graph = around(lambda m, x: m.b(m.a(x).tanh() * m.scale + m.c(x)), a=nn.Linear(3, 4), b=nn.Linear(4, 2),
                   c=nn.Linear(3, 4), scale=torch.zeros(4))  # fmt: skip
    assert [str(m) for m in graph.mutations("drop-branch")] == ["drop-branch(:add, operand=0)"]
    child = grown(graph, "drop-branch(:add, operand=0)")
    assert_exact(graph, child)
    assert {n for n, _ in child.module.named_parameters()} == {"b.weight", "b.bias", "c.weight", "c.bias"}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("drop-branch(:add, operand=2)", gg.MutationError, "operands 0 and 1"),
        ("drop-branch(:add, operand=0)", gg.Declined, "not known to be zero"),
        ("drop-branch(a)", gg.Declined, "no addition of two values"),
    ],
)
def test_refusals(text: str, error: type[Exception], said: str) -> None:
    graph = around(lambda m, x: m.a(x) + m.z(x), a=nn.Linear(3, 4), z=zero(3, 4))
    with pytest.raises(error, match=said):
        gg.apply(graph, text)


def test_a_sum_that_broadcasts_stays() -> None:
    graph = around(lambda m, x: m.z(x).unsqueeze(1) + m.a(x), a=nn.Linear(3, 4), z=zero(3, 4))
    with pytest.raises(gg.Declined, match="another shape"):
        gg.apply(graph, "drop-branch(:add, operand=0)")


def test_what_is_overwritten_behind_the_sum_keeps_its_memory() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        kept = m.a(x)
        return (kept + m.z(x)).relu_() + kept

    graph = around(run, a=nn.Linear(3, 4), z=zero(3, 4))
    with pytest.raises(gg.Declined, match="writes into its memory"):
        gg.apply(graph, "drop-branch(:add)")
    assert len(graph.mutations("drop-branch")) == 0


def test_a_branch_that_others_read_goes_as_far_as_it_is_its_own() -> None:
    graph = around(lambda m, x: (m.a(x) + m.z(m.h(x)), m.h(x)), a=nn.Linear(3, 4), h=nn.Linear(3, 5), z=zero(5, 4))
    child = grown(graph, "drop-branch(:add)")
    assert_exact(graph, child)
    assert {n for n, _ in child.module.named_modules() if n} == {"a", "h"}


def test_statistics_that_a_second_call_gathers_stay() -> None:
    graph = gg.trace(
        Forward(lambda m, x: m.a(x) + m.z(m.n(m.a(x))) + m.n(m.a(x)), a=nn.Linear(3, 4), n=nn.BatchNorm1d(4),
                z=zero(4, 4)).double(), torch.randn(3, 3).double())  # fmt: skip
    with pytest.raises(gg.Declined, match="gather other statistics"):
        gg.apply(graph, "drop-branch(:add)")


def test_the_optimizer_lets_go_of_what_is_gone() -> None:
    graph = gg.apply(traced("resnet"), "deepen(relu, kind=conv)")
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1, momentum=0.9)
    back = gg.apply(graph, "drop-branch(relu_deepen:add)", optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in back.module.parameters()]


def test_without_data_and_saved(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:resnet")
    texts = ["deepen(relu, kind=conv)", "drop-branch(relu_deepen:add)"]
    assert gg.apply(without_data(graph), texts).text() == graph.text()
    assert_reloads(gg.apply(graph, texts), tmp_path)
