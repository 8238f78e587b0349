"""The public face: groups by name and alias, words, the text form, lazy mutations, what is new."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Mutations
from graphgrow.passes import deepen
from graphgrow.rewrite.registry import passes


class Residual(nn.Module):
    """A stream that three layers write, a block within, and an operator without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.odd, self.head = nn.Linear(4, 5), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.outer(torch.relu(self.inner(x)))
        return self.head(x) + torch.special.bessel_j0(self.odd(x)).sum(-1, keepdim=True)


@pytest.fixture(scope="module")
def graph() -> gg.Graph:
    return gg.trace(Residual(), torch.randn(2, 3))


def test_groups_by_name_alias_and_reason(graph: gg.Graph) -> None:
    by_name = {group.name: group for group in graph.groups}
    assert list(by_name) == ["stem", "inner", "head", "odd"]
    stream = by_name["stem"]
    assert (stream.size, stream.members, stream.readers) == (4, ("stem", "outer"), ("inner", "head", "odd"))
    assert graph.group("outer") is stream
    frozen = by_name["odd"].frozen
    assert frozen is not None
    assert "special_bessel_j0 has no axis rule" in str(frozen)
    assert "a model output" in str(by_name["head"].frozen)


def test_explain_says_what_can_grow_and_why_not(graph: gg.Graph) -> None:
    text = graph.explain()
    assert "2 channel groups can grow" in text
    assert "2 cannot" in text
    assert "special_bessel_j0 has no axis rule" in text
    grown = gg.apply(graph, "split(inner)", seed=4)
    assert "split(inner) seed=4" in grown.explain()


def test_the_text_form_of_a_small_graph() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 3 * 5, 4))
    graph = gg.trace(model, torch.randn(7, 1, 3, 5))
    assert graph.text().splitlines() == [
        "input_1 = placeholder(): [s0=7!, s1=1!, s2=3!, s3=5!]",
        "_0 = 0(input_1): [s0=7!, 0=2, s2=3!, s3=5!]",
        "_1 = 1(_0): [s0=7!, 0=2, s2=3!, s3=5!]",
        "_2 = 2(_1): [s0=7!, 0=2 x s2=3! x s3=5!]",
        "_3 = 3(_2): [s0=7!, 3=4!]",
        "output = output(_3)",
    ]
    assert "0=5 x" in gg.apply(graph, "widen(0, extra=3)").text()


def test_passes_that_change_how_a_model_is_called_are_listed_by_name_alone(graph: gg.Graph) -> None:
    asked = {"grow-inputs", "grow-outputs", "grow-positions", "grow-vocabulary", "fold-batch-norm"}
    assert {name for name, kind in passes().items() if not kind.unasked} == asked
    assert not any(mutation.name in asked for mutation in graph.mutations())
    assert [str(mutation) for mutation in graph.mutations("grow-outputs")]


def test_mutations_are_found_as_they_are_asked_for(graph: gg.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    mutations = graph.mutations()
    assert isinstance(mutations, Mutations)
    assert str(mutations[0]) == "add-branch(stem, kind=mlp)"
    assert len(mutations._found) == 1
    asked = {"add-branch", "add-skip", "deepen", "split", "swap-activation", "widen"}
    assert [str(m) for m in mutations if m.name in asked] == [
        "add-branch(stem, kind=mlp)",
        "add-branch(inner, kind=mlp)",
        "add-branch(outer, kind=mlp)",
        "add-branch(head, kind=mlp)",
        "add-branch(odd, kind=mlp)",
        "add-skip(:relu, target=:add)",
        "deepen(:relu, kind=mlp)",
        "deepen(:add, kind=mlp)",
        "split(stem)",
        "split(inner)",
        "swap-activation(:relu, to=gelu)",
        "widen(stem, extra=2)",
        "widen(inner, extra=3)",
    ]
    assert sum(m.name in asked for m in mutations) == 13
    assert {refusal.site for refusal in graph.mutations("widen").refusals} == {"head", "odd"}
    assert [str(m) for m in graph.mutations("widen")] == ["widen(stem, extra=2)", "widen(inner, extra=3)"]
    with pytest.raises(gg.MutationError, match="no pass `grow`"):
        graph.mutations("grow")


def test_mutations_print_as_a_list_and_show_nothing_of_it_unasked(graph: gg.Graph) -> None:
    mutations = graph.mutations("widen")
    assert repr(mutations).startswith("<the mutations of Graph(Residual, ")
    assert mutations._found == []
    assert str(mutations).splitlines() == [
        "widen(stem, extra=2)", "widen(inner, extra=3)", "elsewhere 2 refusals: `.refusals` has the reasons",
    ]  # fmt: skip
    assert str(graph.mutations("enlarge-kernel")) == "none"


def test_new_parameters_are_those_that_were_replaced(graph: gg.Graph) -> None:
    assert graph.new_parameters() == []
    grown = gg.apply(graph, "widen(inner, extra=1)")
    names = {name for name, p in grown.module.named_parameters() if any(p is new for new in grown.new_parameters())}
    assert names == {"inner.weight", "inner.bias", "outer.weight"}
    assert repr(grown).startswith("Graph(Residual, ")


def test_pass_names_come_from_the_folder() -> None:
    files = {path.stem.replace("_", "-") for path in Path(deepen.__file__).parent.glob("[a-z]*.py")}
    assert set(gg.pass_names()) == files >= {"widen", "split", "deepen", "add-skip", "swap-activation"}


def test_a_chain_of_ten_replays_to_the_bit() -> None:
    base = gg.trace("graphgrow:resnet")
    mutations = ["widen(stem, extra=1)", "split(stages.0.0.conv1, units=[0, 5])", "widen(stages.1.0.conv2, extra=3)"]
    mutations += ["split(stem, units=[16], copies=4)", "widen(stages.2.1.conv1, extra=2)", "split(stages.1.1.conv1)"]
    mutations += [f"widen(stages.{i}.0.conv1, extra={i + 1})" for i in range(3)] + [
        "split(stages.2.0.conv2, units=[1])"
    ]
    assert len(mutations) == 10
    grown = gg.apply(base, mutations, seed=11)
    assert gg.verify(base, grown).preserved
    again = gg.replay(gg.trace("graphgrow:resnet").module, base.inputs.sample()[0], grown.ledger)
    assert again.text() == grown.text()
    twin = Residual()  # another architecture does not take the ledger
    with pytest.raises(gg.GraphGrowError):
        gg.replay(twin, torch.randn(2, 3), grown.ledger)
    # equal base weights give equal numbers
    from graphgrow.rewrite.apply import replay

    mine, other = (
        grown.module.state_dict(),
        replay(base, gg.Ledger.from_json(grown.ledger.to_json())).module.state_dict(),
    )
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_a_graph_can_be_copied_with_what_is_known_of_it() -> None:
    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, features = x.shape
            return self.last(self.first(x).view(n, features + 1))

    graph = gg.trace(Sizes(), torch.randn(2, 3))
    assert graph.analysis.facts
    twin = copy.deepcopy(graph)
    grown = gg.apply(twin, "split(first)")
    assert gg.verify(twin, grown).preserved
    assert twin.text() == graph.text()
