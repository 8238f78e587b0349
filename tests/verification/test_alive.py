"""New weights that can never learn, and copies that can never part, are flagged though the function is preserved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg

MODES = ("eval", "alive")


def traced(norm: bool = False) -> gg.Graph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6) if norm else nn.Identity(), nn.GELU(), nn.Linear(6, 3))
    return gg.trace(model, torch.randn(4, 5))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("text", ["widen(0, extra=2)", "split(0)", "deepen(2)"])
def test_right_rewrites_are_alive(text: str, norm: bool) -> None:
    graph = traced(norm)
    verdict = gg.verify(graph, gg.apply(graph, text), modes=MODES)
    assert verdict.preserved is True, verdict
    assert sum(check.mode == "alive" for check in verdict.checks) == 2


def test_new_units_with_zeros_on_both_sides_are_flagged() -> None:
    graph = traced()
    grown = gg.apply(graph, "widen(0, extra=2)", share=False)
    with torch.no_grad():
        grown.module.get_parameter("0.weight")[6:] = 0
    assert gg.verify(graph, grown, modes="eval").preserved is True
    verdict = gg.verify(graph, grown, modes=MODES)
    assert verdict.preserved is False
    assert [(check.mode, check.where) for check in verdict.checks if not check.passed] == [("alive", "0.weight")]


def test_equal_halves_are_flagged() -> None:
    graph = traced()
    grown = gg.apply(graph, "split(0)", share=False)
    with torch.no_grad():
        weight = grown.module.get_parameter("3.weight")
        half = graph.module.get_parameter("3.weight") / 2
        weight[:, :6], weight[:, 6:] = half, half
    verdict = gg.verify(graph, grown, modes=MODES)
    assert [(check.what, check.where) for check in verdict.checks if not check.passed] == [
        ("copies part within 5 steps", "0.weight")
    ]


def test_parameters_that_require_no_gradient_are_left_out() -> None:
    graph = traced()
    for parameter in graph.module.parameters():
        parameter.requires_grad_(False)
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=2)"), modes=MODES)
    assert "alive: nothing new requires a gradient" in verdict.notes


class Branching(nn.Module):
    """A head of zeros behind a stream."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(torch.relu(self.first(x))))


def test_closed_branches_behind_a_head_of_zeros_are_alive() -> None:
    graph = gg.trace(Branching(), torch.randn(4, 5))
    verdict = gg.verify(graph, gg.apply(graph, ["add-branch(last)", "add-branch(first)"]), modes=MODES)
    assert verdict.preserved is True, verdict
    assert "alive: not with the parent's present numbers, so trained with refilled weights" in verdict.notes


def test_a_dead_parent_says_nothing_against_new_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].bias.fill_(-1e3)
    graph = gg.trace(model, torch.randn(4, 5))
    verdict = gg.verify(graph, gg.apply(graph, "deepen(1)"), modes=MODES)
    assert verdict.preserved is True, verdict


def test_a_bias_that_a_batch_norm_takes_away_is_left_out() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 2)]
    graph = gg.trace(nn.Sequential(*layers), torch.randn(3, 2, 5, 5))
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=1)"), modes=MODES)
    assert verdict.preserved is True, verdict


class Keys(nn.Module):
    """Attention whose keys have a bias, which all scores of a query have alike."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))


def test_a_new_bias_that_nothing_depends_on_is_left_out() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Keys(), torch.randn(2, 3, 4))
    for text in ("mix-operators(k, choices=[low-rank])", "add-branch(k, kind=mlp)"):
        verdict = gg.verify(graph, gg.apply(graph, text), modes=MODES)
        assert verdict.preserved is True, verdict


def test_a_new_bias_behind_what_passes_nothing_on_is_flagged() -> None:
    """It matters, and the weight beside it has no gradient either."""
    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(4, 5))
    grown = gg.apply(graph, "add-branch(2, kind=mlp)", share=False)
    for node in list(grown.module.graph.nodes):
        if node.op == "call_module" and str(node.target).endswith("add_branch.first"):
            with grown.module.graph.inserting_after(node):
                cut = grown.module.graph.call_method("detach", (node,))
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)
    grown.module.recompile()
    verdict = gg.verify(graph, grown, modes=MODES)
    assert [check.mode for check in verdict.checks if not check.passed] == ["alive"]


def test_dead_new_units_are_flagged_behind_a_head_of_zeros_as_well() -> None:
    graph = gg.trace(Branching(), torch.randn(4, 5))
    grown = gg.apply(graph, "widen(first, extra=2)", share=False)
    with torch.no_grad():
        grown.module.get_parameter("first.weight")[6:] = 0
        grown.module.get_parameter("first.bias")[6:] = -1
    verdict = gg.verify(graph, grown, modes=MODES)
    assert [check.mode for check in verdict.checks if not check.passed] == ["alive"]


def test_an_expert_that_no_token_is_routed_to_is_left_out() -> None:
    """Two features, both positive: of four directions one may never be among the two that fit best."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 2))
    graph = gg.trace(nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), mlp, nn.Linear(2, 2)), torch.randn(6, 3))
    for seed in range(4):
        verdict = gg.verify(graph, gg.apply(graph, "upcycle-experts(2)", seed=seed), modes=MODES, batch_sizes=())
        assert verdict.preserved is True, verdict


class Tied(nn.Module):
    """A stream without skips whose head is its embedding: the zeros of new units are written as well as read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.before, self.first, self.last = nn.RMSNorm(6), nn.Linear(6, 4), nn.Linear(4, 6)
        self.norm = nn.RMSNorm(6)

    def looked_up(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed(tokens)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.last(torch.tanh(self.first(self.before(self.looked_up(tokens)))))
        return nn.functional.linear(self.norm(hidden), self.embed.weight)


class TiedByFunctions(Tied):
    """The same, the table fetched once and read twice."""

    def looked_up(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(tokens, self.embed.weight)


@pytest.mark.parametrize("kind", [Tied, TiedByFunctions])
def test_a_norm_between_a_tied_table_and_itself_learns_a_step_later(kind: type[Tied]) -> None:
    torch.manual_seed(0)
    graph = gg.trace(kind(), torch.randint(0, 5, (2, 3)))
    verdict = gg.verify(graph, gg.apply(graph, "widen(last, extra=2)"), modes=MODES)
    assert verdict.preserved is True, verdict


class TiedBehindLayerNorm(nn.Module):
    """Nothing but the table's own columns reads the stream behind the norm, and they are alike for all new units."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down, self.norm = (
            nn.Embedding(5, 4),
            nn.Linear(4, 3),
            nn.Linear(3, 4),
            nn.LayerNorm(4),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return nn.functional.linear(self.norm(x + self.down(torch.tanh(self.up(x)))), self.embed.weight)


def test_several_new_units_of_a_tied_stream_part() -> None:
    torch.manual_seed(0)
    graph = gg.trace(TiedBehindLayerNorm(), torch.randint(0, 5, (2, 3)))
    verdict = gg.verify(graph, gg.apply(graph, "widen(down, extra=2)"), modes=MODES)
    assert verdict.preserved is True, verdict
