"""What single policies decide, on evidence that is made up or measured."""

from __future__ import annotations

import pytest
import torch

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.models import GPT
from graphgrow.signals.activity import Activity
from graphgrow.signals.gradients import UnitGradients
from graphgrow.signals.skips import SkipScore
from graphgrow.train.grower import Grower
from graphgrow.train.policies.dnm import Dnm
from graphgrow.train.policies.net2net import Net2Net
from graphgrow.train.policies.progressive import Progressive
from graphgrow.train.policies.random import Random
from graphgrow.train.policies.stack import Stack
from graphgrow.train.policy import Evidence, make_policy, policies
from graphgrow.train.schedule import Interval
from tests.train import small

GENERATOR = torch.Generator().manual_seed(0)


def _activity(group: str, entropy: list[float], rank: float, constant: int | None = None) -> Activity:
    count = len(entropy)
    still = torch.tensor([unit == constant for unit in range(count)])
    values = torch.tensor(entropy, dtype=torch.float64)
    return Activity(group, values, torch.zeros(count), still, still, rank * count, rank, 100)


def _gradients(group: str, variance: list[float]) -> UnitGradients:
    return UnitGradients(group, torch.zeros(len(variance)), torch.tensor(variance, dtype=torch.float64), 100)


def test_dnm_splits_the_busy_units_of_the_fullest_group_first() -> None:
    graph = small.graph()
    evidence = Evidence(
        activity={
            "0": _activity("0", [0.9, 0.1, 0.8, 0.7, 0.95, 0.6], rank=0.5, constant=4),
            "2": _activity("2", [0.9, 0.8, 0.5, 0.2, 0.1], rank=0.9),
        },
        gradients={"0": _gradients("0", [1, 1, 1, 9, 1, 1]), "2": _gradients("2", [1, 1, 1, 1, 1])},
    )
    found = list(Dnm(entropy=0.55, share=0.5).candidates(graph, evidence, GENERATOR))
    assert [candidate.mutations for candidate in found] == [
        ("split(2, units=[0, 1], apart=true)",),
        ("split(0, units=[0, 2, 3], apart=true)",),
    ]
    assert found[0].numbers["rank_share"] == 0.9
    assert found[0].numbers["entropy"] == torch.tensor([0.9, 0.8], dtype=torch.float64).mean()


def test_dnm_connects_what_stands_out_of_chance_and_helps_what_was_held_out() -> None:
    graph = small.graph()

    def score(target: str, norm: float) -> SkipScore:
        return SkipScore("1", target, norm, 1.0, 0.1 * norm, 100, 4)

    skips = (score("3", 3.0), score("5", 2.0), score("4", 1.2))
    held_out = {"add-skip(1, target=3)": -0.2, "add-skip(1, target=5)": 0.4}
    evidence = Evidence(skips=skips, held_out=held_out)
    found = list(Dnm(connections=2, gradient=1.5).candidates(graph, evidence, GENERATOR))
    assert [candidate.mutations for candidate in found] == [("add-skip(1, target=5)",)]
    assert found[0].numbers["held_out_cosine"] == 0.4
    assert found[0].numbers["above_chance"] == 2.0


def test_a_split_probability_of_zero_splits_nothing() -> None:
    evidence = Evidence(activity={"0": _activity("0", [0.9] * 6, 0.5)}, gradients={"0": _gradients("0", [1.0] * 6)})
    assert not list(Dnm(split_probability=0.0).candidates(small.graph(), evidence, GENERATOR))


def test_progressive_follows_its_list() -> None:
    policy = Progressive(stages=(("widen(0, extra=2)",), ("deepen(1, kind=mlp)", "split(2)")))
    graph = small.graph()
    for stage in (0, 1):
        (candidate,) = policy.candidates(graph, Evidence(stage=stage), GENERATOR)
        assert candidate.mutations == policy.stages[stage]
        assert candidate.numbers == {"listed_stage": stage + 1}, "as the screen counts them"
    assert not list(policy.candidates(graph, Evidence(stage=2), GENERATOR))


def test_a_stage_that_is_listed_is_made_whatever_the_policys_growth_or_refused_before_the_first_batch() -> None:
    graph = small.graph()
    stages = (("widen(0, extra=30)",), ("widen(2, extra=40)", "split(0, units=[35])"))
    grower = Grower(graph, None, Progressive(stages=stages), when=Interval(1), verify=False)
    for wanted in stages:
        proposal = grower.propose()
        assert proposal is not None
        assert proposal.mutations == wanted
        assert proposal.flops > 2.1 * grower.graph.flops, "more than twice"
        grower.apply(proposal)
    tight = Grower(graph, None, Progressive(stages=stages), when=Interval(1), budget=gg.Budget(parameters=200))
    assert tight.propose() is None
    assert tight.decisions[0].reason.endswith("parameters are more than the 200 allowed; it asks no more")


def test_a_stage_that_cannot_be_made_is_refused_before_anything_is_trained() -> None:
    stages = (("widen(0, extra=2)",), ("split(0, units=[8])",))
    for first in (Grower.propose, lambda grower: grower.observe().__enter__()):
        with pytest.raises(TrainingError, match=r"stage 2 of the 2 listed cannot be made: .*8"):
            first(Grower(small.graph(), None, Progressive(stages=stages), when=Interval(1)))
    with pytest.raises(TrainingError, match=r"the stage listed cannot be made: .*nowhere"):
        Grower(small.graph(), None, Progressive(stages=(("widen(nowhere)",),)), when=Interval(1)).propose()
    empty: list[str] = []
    for wrong in ["widen(0)"], [empty]:
        with pytest.raises(TrainingError, match=r"stage 1 of `progressive` is .*; give each stage as a list"):
            make_policy("progressive", stages=wrong)
    once = "swap-activation(1, to=gelu)"
    grown = gg.apply(small.graph(), once)
    again = Grower(grown, None, Progressive(stages=((once,), ("split(0, units=[5])",))), when=Interval(1))
    again.restore(grown, {**again.state(), "round": 1, "stage": 1}, small.graph())
    proposal = again.propose()
    assert proposal is not None, "the first stage cannot be made again, and need not be"
    assert proposal.mutations == ("split(0, units=[5])",)


def test_stack_copies_every_block_once_and_fewer_where_the_stage_has_no_room() -> None:
    tokens = torch.arange(12).view(2, 6)
    graph = gg.trace(GPT(vocabulary=12, dim=8, depth=2, heads=2, hidden=16), tokens)
    found = list(Stack().candidates(graph, Evidence(), GENERATOR))
    assert [one.mutations for one in found] == [
        ("deepen(blocks.0, kind=copy)", "deepen(blocks.1, kind=copy)"),
        ("deepen(blocks.1, kind=copy)",),
    ], "attention and MLP are blocks too, but within larger ones"
    twice = gg.apply(graph, found[0].mutations)
    assert torch.equal(twice.module(tokens), graph.module(tokens))
    assert [len(one.mutations) for one in Stack().candidates(twice, Evidence(), GENERATOR)] == [4, 2, 1]
    sizes = []
    for growth in (2.0, 1.5):
        grower = Grower(graph, None, Stack(growth=growth), when=Interval(1), verify=False)
        proposal = grower.propose()
        assert proposal is not None
        assert proposal.numbers == {"blocks": len(proposal.mutations)}
        sizes.append(len(proposal.mutations))
    assert sizes == [2, 1]
    plain = gg.trace(torch.nn.Linear(3, 2), torch.ones(2, 3))
    assert not list(Stack().candidates(plain, Evidence(), GENERATOR))


def test_random_repeats_with_its_generator_and_differs_with_another() -> None:
    graph = small.graph()
    drawn = [
        [c.mutations for c in Random().candidates(graph, Evidence(), torch.Generator().manual_seed(seed))]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_folder_is_the_registry() -> None:
    assert list(policies()) == ["dnm", "gradmax", "net2net", "progressive", "random", "stack"]
    assert all(policy.summary for policy in policies().values())


def test_net2net_grows_a_stream_under_layer_norms_by_fresh_units() -> None:
    graph = gg.trace("graphgrow:gpt")
    candidate = next(iter(Net2Net().candidates(graph, Evidence(), GENERATOR)))
    assert any(mutation.startswith("widen(embed, extra=") for mutation in candidate.mutations)
    assert any(mutation.startswith("split(blocks.0.mlp.0, units=") for mutation in candidate.mutations)
    assert gg.apply(graph, candidate.mutations).parameter_count > graph.parameter_count


def test_a_policy_that_sees_nothing_to_do_says_what_it_wants() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = (torch.nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x).relu()
            result: torch.Tensor = self.left(h) + self.right(h)
            return result

    graph = gg.trace(Twice(), small.INPUTS[:2])
    grower = Grower(graph, None, "gradmax", when=Interval(1), every=1)
    with grower.observe():
        grower.module(small.INPUTS).square().sum().backward()
    assert grower.propose() is None
    reason = grower.decisions[0].reason
    assert reason.endswith("nothing to do: it wants a group that one linear map or convolution writes and one reads")
