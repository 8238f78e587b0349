"""Alternating training: what moves when, the schedule, the noise, and the guard against skips."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.data.names import load_data
from graphgrow.data.parts import Data
from graphgrow.errors import SearchError
from graphgrow.graph import Graph
from graphgrow.network.own import own
from graphgrow.search.alternation import Site, alternate, decided, sites_of
from graphgrow.search.recipe import Alternation, Training
from graphgrow.search.training import train
from tests.search.small import model

DATA: Data = load_data("tests.search.small:data")
TURNS = Alternation(steps=10, every=2, warm_up=0.4, opening=0.5, hot=2.0, cold=0.5)


def opened(*texts: str) -> Graph:
    torch.manual_seed(0)
    graph = gg.trace(model(), DATA.training.inputs[:2])
    return own(gg.apply(graph, texts or ["mix-operators(0, choices=[conv-5, max-pool])", "mix-operators(2, choices=[gelu, identity])"]))  # fmt: skip  # noqa: E501


def test_weights_and_alphas_move_in_turns_and_the_schedule_arrives() -> None:
    graph = opened()
    sites = sites_of(graph)
    assert [(site.name, site.choice.names) for site in sites] == [
        ("0", ("present", "conv-5", "max-pool")),
        ("2", ("present", "gelu", "identity")),
    ]
    assert [site.free for site in sites] == [(False, False, False), (False, False, True)]
    alphas, seen = [], []

    def watch(step: int, now: object) -> None:
        alphas.append(sites[0].choice.alpha.detach().clone())
        seen.append((step, float(sites[0].choice.opened), float(sites[0].choice.temperature)))

    stopped = alternate(graph, sites, DATA, Training(batch_size=16), TURNS, 3, watch)
    assert stopped is None
    moved = [not torch.equal(a, b) for a, b in zip([torch.zeros(3), *alphas], alphas, strict=False)]
    assert moved == [False] * 4 + [True, False] * 3  # still in the warm-up, then every second step
    # closed in the warm-up of 4 steps, then open within half of the 6 that are left
    assert [round(opening * 3, 4) for _, opening, _ in seen] == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert [heat for _, _, heat in seen][:5] == [2.0] * 5
    assert float(sites[0].choice.temperature) == pytest.approx(0.5)
    assert float(sites[0].choice.opened) == 1.0
    assert (sites[0].choice.gumbel, sites[0].choice.opened.requires_grad) == (0.0, True)
    assert [site.steps for site in sites] == [[*range(11)]] * 2
    assert all(abs(sum(shares) - 1) < 1e-5 for site in sites for shares in site.shares)
    assert not graph.module.training


def test_in_the_warm_up_candidates_learn_to_be_like_the_present_operator_and_nothing_else_sees_them() -> None:
    graph, alone = opened("mix-operators(0, choices=[dilated-3])"), own(gg.trace(model(), DATA.training.inputs[:2]))
    with torch.no_grad():
        for name, parameter in alone.module.named_parameters():
            parameter.copy_(graph.module.get_parameter(name))
    sites, gaps = sites_of(graph), []

    def compare(_: nn.Module, values: tuple[torch.Tensor, ...]) -> None:
        gaps.append(float((values[1] - values[0]).square().mean() / values[0].square().mean()))

    sites[0].choice.register_forward_pre_hook(compare)
    assert {tuple(p.shape) for p in sites[0].others} == {(2, 1, 3, 3)}  # no bias in front of the batch norm
    warm = Alternation(steps=60, warm_up=1.0)
    training = Training(batch_size=16, learning_rate=0.03)
    alternate(graph, sites, DATA, training, warm, 3, lambda step, now: None)
    assert gaps[-1] < 0.5 * gaps[0]
    assert torch.equal(sites[0].choice.alpha.detach(), torch.zeros(2))
    train(alone, DATA, training, "steps", 60, 3)
    for name, parameter in alone.module.named_parameters():
        torch.testing.assert_close(graph.module.get_parameter(name), parameter)


def test_noise_falls_with_the_temperature() -> None:
    """So that operators are sampled by the shares that are shown, and near the end almost always the one that stays."""
    graph = opened("mix-operators(0, choices=[conv-5])")
    (site,) = sites = sites_of(graph)
    seen: list[tuple[float, float]] = []
    watch = lambda step, now: seen.append((site.choice.gumbel, float(site.choice.temperature)))  # noqa: E731
    alternate(graph, sites, DATA, Training(batch_size=16), TURNS, 3, watch)
    assert all(noise == pytest.approx(heat) for noise, heat in seen)
    torch.manual_seed(0)
    with torch.no_grad():
        site.choice.alpha.copy_(torch.tensor([0.3, 0.0]))
    site.choice.train()
    site.choice.gumbel = float(site.choice.temperature)
    first = sum(bool(site.choice.weights()[0] > 0.5) for _ in range(4000)) / 4000
    assert first == pytest.approx(site.certainty, abs=0.03)


def test_the_same_seed_gives_the_same_choice() -> None:
    found = []
    for hard in (False, False, True):
        graph = opened()
        sites = sites_of(graph)
        alternate(graph, sites, DATA, Training(batch_size=16), replace(TURNS, hard=hard), 3, lambda step, now: None)
        found.append(torch.cat([site.choice.alpha.detach() for site in sites]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_alpha_follows_the_validation_part() -> None:
    """A site whose present operator hides the answer and whose candidate passes it on."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.head = nn.Tanh(), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(x.flatten(1) * 1e-3))

    graph = own(gg.apply(gg.trace(Blind(), DATA.training.inputs[:2]), "mix-operators(act, choices=[softsign, none])"))
    with torch.no_grad():
        graph.module.get_parameter("head.weight").zero_()[torch.arange(3), torch.arange(3)] = 4e3
    sites = sites_of(graph)
    turns = replace(TURNS, steps=40, warm_up=0.0, learning_rate=0.1, entropy=0.0)
    alternate(graph, sites, DATA, Training(batch_size=48, learning_rate=1e-6), turns, 0, lambda step, now: None)
    assert sites[0].choice.names[int(sites[0].choice.alpha.argmin())] == "none"


def test_the_entropy_term_makes_choices_surer() -> None:
    certain = []
    for weight in (0.0, 20.0):
        graph = opened()
        sites = sites_of(graph)
        turns = replace(TURNS, steps=40, warm_up=0.0, every=1, entropy=weight, most_free=1.0, learning_rate=0.1)
        alternate(graph, sites, DATA, Training(batch_size=16), turns, 1, lambda step, now: None)
        certain.append(min(site.certainty for site in sites))
    assert certain[1] > max(certain[0], 0.9)


def test_too_many_skips_stop_the_alphas() -> None:
    graph = opened()
    sites = sites_of(graph)
    with torch.no_grad():
        for site in sites:
            site.choice.alpha[2] = 9.0
    before = [site.choice.alpha.detach().clone() for site in sites]
    stopped = alternate(graph, sites, DATA, Training(), replace(TURNS, most_free=0.4), 0, lambda step, now: None)
    assert stopped == 4  # the first step behind the warm-up
    drift = max(float((a - site.choice.alpha).abs().max()) for a, site in zip(before, sites, strict=True))
    assert drift <= 0.031  # one step of Adam


def site(alpha: list[float], free: tuple[bool, ...]) -> Site:
    graph = opened("mix-operators(0, choices=[conv-5, max-pool])")
    (found,) = sites_of(graph)
    with torch.no_grad():
        found.choice.alpha.copy_(torch.tensor(alpha))
    return replace(found, free=free)


def test_the_surest_skips_stay_and_the_others_give_way() -> None:
    free = (False, False, True)
    sites = [site([0, 1, 2], free), site([0, 1, 5], free), site([3, 1, 2], free), site([2, 1, 4], free)]
    assert decided(sites, 1.0) == [2, 2, 0, 2]
    assert decided(sites, 0.25) == [1, 2, 0, 0]
    assert decided(sites, 0.5) == [1, 2, 0, 2]
    assert decided(sites, 0.0) == [1, 1, 0, 0]


def test_what_is_refused() -> None:
    graph = gg.trace(model(), DATA.training.inputs[:2])
    with pytest.raises(SearchError, match="there is no choice to make"):
        alternate(graph, [], DATA, Training(), TURNS, 0, lambda step, now: None)
    graph = opened()
    with pytest.raises(SearchError, match=r"the loss is nan in step \d+"):
        alternate(graph, sites_of(graph), DATA, Training(learning_rate=1e30), TURNS, 0, lambda step, now: None)
