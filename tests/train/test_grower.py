"""The grower in a plain loop: every policy grows exactly, within its budget, with everything carried over."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.train.budget import Budget
from graphgrow.train.grower import Grower
from graphgrow.train.optimizers import optimizer_state, restore_optimizer
from graphgrow.train.packing import pack, unpack
from graphgrow.train.policy import make_policy, policies
from graphgrow.train.proposal import Proposal
from graphgrow.train.schedule import Interval, Plateau
from graphgrow.train.start import Start
from tests.train import small

POLICIES = [name for name in policies() if name != "stack"]  # no block that it could copy is in the nets here


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("norm", [False, True])
def test_every_policy_grows_within_its_budget_and_changes_no_output(policy: str, norm: bool) -> None:
    graph = small.graph(norm)
    optimizer = small.adam(graph)
    budget = Budget(parameters=400)
    grower = Grower(graph, optimizer, policy, when=Interval(2), every=1, budget=budget, held_out=small.loss)
    sizes = []
    for _ in range(8):
        metric = small.epoch(grower, optimizer)
        before = grower.module(small.INPUTS)
        proposal = grower.propose(metric)
        if proposal is None:
            continue
        child = grower.apply(proposal)
        assert grower.graph is child
        assert torch.allclose(grower.module.eval()(small.INPUTS), before, atol=1e-5)
        assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
            id(p) for p in child.module.parameters()
        }
        assert (child.parameter_count, child.flops) == (proposal.parameters, proposal.flops)
        sizes.append(child.parameter_count)
    assert sizes, "something was grown"
    assert sizes == sorted(sizes)
    assert sizes[-1] <= 400
    grown = [decision for decision in grower.decisions if decision.verdict == "grown"]
    assert [decision.parameters_after for decision in grown] == sizes
    assert all(decision.flops_after <= 2.1 * decision.flops_before for decision in grown)
    assert all(decision.reason == "after 2 rounds" for decision in grown)


def _proposed() -> tuple[Grower, torch.optim.Optimizer, Proposal]:
    """A grower after one round, with what it wants to do next."""
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, "progressive", when=Interval(1))
    proposal = grower.propose(small.epoch(grower, optimizer))
    assert proposal is not None
    return grower, optimizer, proposal


def test_a_child_that_computes_something_else_is_refused_before_anything_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grower, optimizer, proposal = _proposed()
    graph, state = grower.graph, copy.deepcopy(optimizer.state_dict())

    def wrong(parent: Graph, *args: Any, **options: Any) -> Graph:
        child = gg.apply(parent, *args, **options)
        with torch.no_grad():
            child.module.get_parameter("6.weight").mul_(1.5)
        return child

    monkeypatch.setattr("graphgrow.train.grower.apply", wrong)
    with pytest.raises(gg.NotPreserved, match=r"widen(?s:.*)NOT preserved"):
        grower.apply(proposal)
    assert grower.graph is graph
    assert str(optimizer.state_dict()) == str(state)


class Attention(torch.nn.Module):
    """As people write it: a packed product taken apart by `chunk`, and layer norms in front."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.norm, self.packed = nn.Linear(2, 6), nn.LayerNorm(6), nn.Linear(6, 18)
        self.leave, self.up, self.again, self.down = nn.Linear(6, 6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x.unflatten(1, (3, 2)))
        q, k, v = self.packed(self.norm(x)).chunk(3, -1)
        x = x + self.leave(F.scaled_dot_product_attention(q, k, v))
        result: torch.Tensor = self.down(F.gelu(self.again(self.up(x.mean(1)))))
        return result


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_is_exact_on_a_transformer_of_the_users_own(policy: str) -> None:
    """What is seen behind `chunk`; and starts leave the mean rows in front of layer norms as they are."""
    graph = gg.trace(Attention(), small.INPUTS[:2])
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, policy, when=Interval(1), every=1, verify=False)
    for _ in range(2):
        metric = small.epoch(grower, optimizer)
        before = grower.module(small.INPUTS)
        proposal = grower.propose(metric)
        assert proposal is not None
        grower.apply(proposal)
        assert torch.allclose(grower.module.eval()(small.INPUTS), before, atol=1e-5)


def test_a_start_that_moves_the_outputs_is_refused_before_anything_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grower, optimizer, proposal = _proposed()
    graph, state = grower.graph, copy.deepcopy(optimizer.state_dict())

    def spoil(start: Start, child: Graph, *_: Any) -> None:
        with torch.no_grad():
            child.module.get_parameter("6.weight").add_(1)

    monkeypatch.setattr(Start, "prepare", spoil)
    with pytest.raises(gg.NotPreserved, match=r"the start of what is new moved the outputs by \d+\.\d%"):
        grower.apply(proposal)
    assert grower.graph is graph
    assert str(optimizer.state_dict()) == str(state)


def test_the_numbers_of_a_decision_are_those_of_the_signals() -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, "dnm", when=Interval(1), every=1)
    grower.propose(small.epoch(grower, optimizer))
    proposal = grower.propose(small.epoch(grower, optimizer))
    assert proposal is not None
    assert any(name.startswith("entropy") and 0.4 <= value <= 1 for name, value in proposal.numbers.items())


def test_a_training_with_growth_goes_on_and_repeats() -> None:
    """Equal seeds give equal weights; the second time through a scheduler, a scaler and an average as well."""
    ends = []
    for _ in range(2):
        graph = small.graph()
        optimizer = small.adam(graph)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        grower = Grower(graph, optimizer, "net2net", when=Interval(3), every=2, most_stages=2, seed=5)
        for _ in range(8):
            metric = small.epoch(grower, optimizer)
            scheduler.step()
            if proposal := grower.propose(metric):
                grower.apply(proposal)
        assert grower.stage == 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.25)
        ends.append(torch.cat([p.detach().flatten() for p in grower.module.parameters()]))
    assert torch.equal(*ends)


def test_a_gradient_scaler_goes_on() -> None:
    graph = small.graph()
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    grower = Grower(graph, optimizer, "net2net", when=Interval(1))
    for _ in range(3):
        optimizer.zero_grad()
        before = float(small.loss(grower.module).detach())
        with grower.observe():
            scaler.scale(small.loss(grower.module)).backward()
        scaler.step(optimizer)
        scaler.update()
        if grower.stage == 0 and (proposal := grower.propose(before)):
            grower.apply(proposal)
    assert float(small.loss(grower.module).detach()) < before
    assert scaler.get_scale() == 8.0


def test_an_average_grows_along_exactly() -> None:
    graph = small.graph(norm=True)
    optimizer = small.adam(graph)
    averaged = AveragedModel(graph.module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    grower = Grower(graph, optimizer, "random", when=Interval(2), every=1, averaged=averaged)
    for _ in range(2):
        metric = small.epoch(grower, optimizer)
        averaged.update_parameters(grower.module)
        proposal = grower.propose(metric)
    assert proposal is not None
    averaged.eval()
    before, count = averaged(small.INPUTS), int(averaged.n_averaged)
    grower.apply(proposal)
    assert torch.allclose(averaged.eval()(small.INPUTS), before, atol=1e-5)
    small.epoch(grower, optimizer)
    averaged.update_parameters(grower.module)
    assert int(averaged.n_averaged) == count + 1
    shapes = [p.shape for p in grower.module.parameters()]
    assert [p.shape for p in averaged.module.parameters()] == shapes


def test_what_did_not_pay_is_taken_back() -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, "net2net", when=Interval(1), every=1, rollback_after=2, verify=False)
    small.epoch(grower, optimizer)
    proposal = grower.propose(0.5)
    assert proposal is not None
    tensors = copy.deepcopy(graph.module.state_dict())
    moments = {name: optimizer.state[p]["exp_avg"].clone() for name, p in graph.module.named_parameters()}
    grower.apply(proposal)
    for _ in range(2):
        small.epoch(grower, optimizer)
        grower.propose(0.6)
    assert grower.decisions[-1].verdict == "rolled back"
    assert grower.decisions[-1].numbers == {"metric_before": 0.5, "metric_after": 0.6, "margin": 0.0}
    assert grower.decisions[-1].reason == "0.6 after 2 rounds is no better than 0.5 before the growth"
    assert grower.graph is graph
    assert all(torch.equal(graph.module.state_dict()[name], tensor) for name, tensor in tensors.items())
    for name, parameter in graph.module.named_parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[name])
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in graph.module.parameters()}
    small.epoch(grower, optimizer)


def test_a_growth_that_may_be_taken_back_survives_a_restart() -> None:
    """Kept as plain values between growth and verdict, the network goes back to the very same numbers."""
    ends = []
    for restart in (False, True):
        base = small.graph(norm=True)
        optimizer = small.adam(base)
        averaged = AveragedModel(base.module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)

        def make(
            graph: Graph,
            averaged: AveragedModel = averaged,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> Grower:
            when = Interval(2)
            return Grower(
                graph, optimizer, "net2net", when=when, every=1, averaged=averaged, rollback_after=2, verify=False
            )

        grower = make(base)
        small.epoch(grower, optimizer)
        proposal = grower.propose(0.5)
        for metric in (0.4, 0.6, 0.7):  # it grows behind the first, and goes back behind the last
            if proposal is not None:
                grower.apply(proposal)
            small.epoch(grower, optimizer)
            averaged.update_parameters(grower.module)
            if restart and grower.stage == 1:
                head, tensors = pack([grower.state(), optimizer_state(optimizer, grower.module)])
                state, moments = unpack(head, {name: tensor.clone() for name, tensor in tensors.items()})
                grower = make(grower.graph)
                grower.restore(grower.graph, state, small.graph(norm=True))
                restore_optimizer(optimizer, grower.module, moments)
            proposal = grower.propose(metric)
        assert grower.decisions[-1].verdict == "rolled back"
        assert grower.graph.ledger == base.ledger
        small.epoch(grower, optimizer)
        averaged.update_parameters(grower.module)
        ends.append([tensor.clone() for module in (grower.module, averaged) for tensor in module.state_dict().values()])
    assert all(torch.equal(first, second) for first, second in zip(*ends, strict=True))


@pytest.mark.parametrize(("after", "verdict"), [(0.524, "grown"), (0.526, "rolled back")])
def test_a_margin_is_allowed_before_a_growth_is_taken_back(after: float, verdict: str) -> None:
    graph = small.graph()
    grower = Grower(graph, None, "net2net", when=Interval(1), rollback_after=1, rollback_margin=0.05, verify=False)
    proposal = grower.propose(0.5)
    assert proposal is not None
    grower.apply(proposal)
    grower.propose(after)
    assert grower.decisions[1 if verdict == "rolled back" else 0].verdict == verdict
    assert (grower.graph is graph) == (verdict == "rolled back")
    if verdict == "rolled back":
        said = "0.526 after 1 round is not below 0.525, 5.0% more than the 0.5 before the growth"
        assert grower.decisions[1].reason == said


def test_what_pays_stays() -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, "net2net", when=Interval(5), every=1, rollback_after=1, verify=False)
    for _ in range(5):
        small.epoch(grower, optimizer)
        proposal = grower.propose(0.5)
    assert proposal is not None
    grower.apply(proposal)
    small.epoch(grower, optimizer)
    grower.propose(0.4)
    assert grower.graph is not graph
    assert [decision.verdict for decision in grower.decisions] == ["grown"]


def test_limits_are_kept_and_named() -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, "net2net", when=Interval(1), every=1, budget=Budget(parameters=160), cool_down=1)
    small.epoch(grower, optimizer)
    assert grower.propose(1.0) is None, "the cool-down"
    assert grower.decisions == []
    small.epoch(grower, optimizer)
    assert grower.propose(1.0) is None
    assert "parameters are more than the 160 allowed" in grower.decisions[0].reason
    assert grower.decisions[0].verdict == "declined"
    assert "it asks no more" in grower.decisions[0].reason
    again = Grower(graph, optimizer, "net2net", when=Interval(1), budget=Budget(parameters=160))
    again.restore(graph, grower.state(), graph)
    for full in (grower, again):
        assert not full.will_observe
        for _ in range(3):
            assert full.propose(1.0) is None
        assert len(full.decisions) == 1
    tight = Grower(
        graph, optimizer, make_policy("net2net", growth=0.9), when=Interval(1), budget=Budget(parameters=999)
    )
    for _ in range(2):
        assert tight.propose(1.0) is None
    assert ["times the FLOPs in one stage, of which" in decision.reason for decision in tight.decisions] == [True] * 2
    slow = Grower(graph, optimizer, "net2net", when=Interval(1), budget=Budget(latency_ms=1e-6))
    assert slow.propose(1.0) is None
    assert "ms are more than the 0.000 ms allowed" in slow.decisions[0].reason


def test_a_plateau_needs_a_metric() -> None:
    with pytest.raises(TrainingError, match="validation_loss"):
        Grower(small.graph(), None, "net2net", when=Plateau()).propose()


def test_a_proposal_without_measurements_says_so() -> None:
    grower = Grower(small.graph(), None, "gradmax", when=Interval(1))
    assert grower.propose() is None
    assert "run loss.backward() while the model is watched" in grower.decisions[0].reason


def test_nothing_is_left_on_the_module_and_most_batches_are_left_alone() -> None:
    graph = small.graph()
    grower = Grower(graph, None, "dnm", every=3)
    watched = []
    for _ in range(6):
        with grower.observe():
            watched.append("forward" in grower.module.__dict__)
            small.loss(grower.module).backward()
        assert "forward" not in grower.module.__dict__
    assert watched == [True, False, False] * 2


def test_an_unknown_policy_or_option_is_named() -> None:
    with pytest.raises(TrainingError, match="every=0: one of so many batches"):
        Grower(small.graph(), None, every=0)
    with pytest.raises(TrainingError, match="no policy `dmn`; there are dnm, gradmax, net2net, progressive, random"):
        Grower(small.graph(), None, "dmn")
    from graphgrow.train.policy import make_policy

    with pytest.raises(TrainingError, match="`dnm` has no option entropie; it has apart, connections, entropy"):
        make_policy("dnm", entropie=0.3)


def test_an_optimizer_of_another_model_is_refused_at_once() -> None:
    """It was at the first growth, hours later."""
    graph, other = (gg.trace("graphgrow:mlp") for _ in range(2))
    with pytest.raises(gg.OptimizerError, match="trains none of the parameters of this graph"):
        gg.Grower(graph, torch.optim.SGD(other.module.parameters(), 1e-3))


def test_an_optimizer_that_is_unknown_is_refused_before_anything_is_trained() -> None:
    graph = small.graph()
    with pytest.raises(gg.OptimizerError, match="the state of Rprop cannot be carried over"):
        Grower(graph, torch.optim.Rprop(graph.module.parameters()))


def test_under_autocast_signals_are_summed_in_whole_precision() -> None:
    """A product in bfloat16 would round them, and has no singular values."""
    found = []
    for half in (False, True):
        graph = small.graph()
        grower = Grower(graph, None, "gradmax", when=Interval(1), every=1)
        with grower.observe(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            small.loss(grower.module).backward()
        proposal = grower.propose()
        assert proposal is not None, grower.decisions
        found.append(proposal)
    assert found[0].mutations == found[1].mutations
    for name, value in found[0].numbers.items():
        assert found[1].numbers[name] == pytest.approx(value, rel=0.05), "as far as the network's own rounding goes"
