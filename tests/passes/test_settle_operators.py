"""settle-operators: what has all the weight is left, exactly; anything else declines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from tests.passes.claims import assert_exact, assert_exports, grown
from tests.passes.test_mix_operators import ALL, choice, graph
from tests.preserved import assert_same_bits

NAMES = ["present", *ALL.split(", ")]


def mixed() -> Graph:
    return gg.apply(graph(), f"mix-operators(conv, choices=[{ALL}])", seed=3)


@pytest.mark.parametrize("name", NAMES)
def test_the_one_with_all_the_weight_is_left(name: str) -> None:
    opened = mixed()
    choice(opened).close(NAMES.index(name))
    text = "settle-operators(conv)" if name == "present" else f"settle-operators(conv, keep={name})"
    assert [str(mutation) for mutation in opened.mutations("settle-operators")] == [text]
    child = grown(opened, text)
    assert_exact(opened, child, batches=(1, 3))
    assert gg.verify(opened, child).preserved or name == "none"  # behind zero nothing can be told apart
    assert len(list(child.module.graph.nodes)) < len(list(opened.module.graph.nodes))
    left = [name for name, _ in child.module.named_modules() if "mix_operators." in name]
    assert {path.split(".")[1] for path in left} == ({name.replace("-", "_")} if name != "present" else set())


def test_closed_on_the_present_one_the_graph_is_what_it_was() -> None:
    base = graph()
    again = gg.apply(base, [f"mix-operators(conv, choices=[{ALL}])", "settle-operators(conv)"])
    assert again.text() == base.text()
    assert_same_bits(again.module, base.module)
    assert gg.clean(gg.apply(base, f"mix-operators(conv, choices=[{ALL}])")).text() == base.text()


@pytest.mark.parametrize("keep", ["present", "gelu", "identity"])
def test_beside_an_activation_in_place_any_of_them_may_be_left(keep: str) -> None:
    """As torchvision's residual nets have them; what the activation overwrites nobody else reads behind it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    opened = gg.apply(gg.trace(model, torch.randn(2, 3)), "mix-operators(1, choices=[gelu, identity])")
    layer = choice(opened)
    layer.close(layer.names.index(keep))
    child = grown(opened, "settle-operators(1)" if keep == "present" else f"settle-operators(1, keep={keep})")
    assert_exact(opened, child, batches=(1, 3))
    assert ("1" in dict(child.module.named_modules())) == (keep == "present")


def test_in_between_it_declines() -> None:
    opened = mixed()
    layer = choice(opened)
    with torch.no_grad():
        layer.opened.fill_(0.5)
        layer.alpha[2] = 3.0
    offered = opened.mutations("settle-operators")
    assert len(offered) == 0
    assert "the strongest, present, has a weight of 0.5" in str(offered.refusals[0])
    assert "close the choice on one of them first" in str(offered.refusals[0])
    with pytest.raises(gg.Declined, match="keep=conv-5 is exact where it has all; close it there"):
        gg.apply(opened, "settle-operators(conv, keep=conv-5)")


def test_what_is_refused() -> None:
    with pytest.raises(gg.Declined, match="there is no choice between operators at `conv`"):
        gg.apply(graph(), "settle-operators(conv)")
    with pytest.raises(gg.MutationError, match="keep=conv-9: the choice is between present, conv-1"):
        gg.apply(mixed(), "settle-operators(conv, keep=conv-9)")


def test_the_winner_can_be_opened_again_and_the_ledger_rebuilds_it(tmp_path: Path) -> None:
    base = gg.trace("graphgrow:resnet")
    site = "stages.0.0.conv1"
    opened = gg.apply(base, f"mix-operators({site}, choices=[conv-5, max-pool])", seed=1)
    choice(opened).close(1)
    first = gg.apply(opened, f"settle-operators({site}, keep=conv-5)")
    again = gg.apply(first, f"mix-operators({site}_mix_operators.conv_5, choices=[conv-3, identity])", seed=2)
    assert gg.verify(first, again).preserved
    choice(again).close(2)
    second = gg.apply(again, f"settle-operators({site}_mix_operators.conv_5, keep=identity)")
    loaded = gg.load(gg.save(second, tmp_path))
    assert loaded.text() == second.text()
    assert_same_bits(loaded.module, second.module)


def test_it_can_be_named_by_the_choice_itself_and_exports(tmp_path: Path) -> None:
    opened = gg.apply(graph(dtype=torch.float32), "mix-operators(conv, choices=[conv-5])")
    choice(opened).close(1)
    assert_exports(gg.apply(opened, "settle-operators(conv_mix_operators.choice, keep=conv-5)"), tmp_path)
