"""The pace of new entries: exact parts of what the optimizer does, the rest untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.train.newness import newness
from graphgrow.train.pace import Newcomers, Pace
from tests.train import small

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
}


def test_the_factor_rises_and_comes_back_to_one() -> None:
    def factors(pace: Pace, start: float, steps: int) -> list[float]:
        return [float(pace.factors(step, torch.tensor([start]))) for step in range(1, steps + 1)]

    pace = Pace(rate=2.0, warm_up=3, decay=3)
    assert factors(pace, 0.0, 8) == [0.5, 1.0, 1.5, 1.75, 1.5, 1.25, 1.0, 1.0]
    assert [pace.over(step) for step in (6, 7)] == [False, True]
    assert factors(pace, 0.5, 5) == [0.625, 0.75, 0.875, 1.0, 1.0], "what is not new has no rate of its own"
    assert factors(Pace(warm_up=0), 0.0, 2) == [1.0, 1.0]


@pytest.mark.parametrize("kind", MAKERS)
def test_the_first_steps_of_new_entries_are_a_part_of_what_they_would_be(kind: str) -> None:
    net = nn.Linear(3, 4)
    twin = copy.deepcopy(net)
    new = torch.zeros(4, 3, dtype=torch.bool)
    new[2:] = True
    slow, plain = MAKERS[kind](net.parameters()), MAKERS[kind](twin.parameters())
    newcomers = Newcomers(slow, Pace(warm_up=4))
    newcomers.welcome(net, {"weight": (~new).float()})
    start = net.weight.detach().clone()
    x = torch.randn(5, 3)
    for module, optimizer in ((net, slow), (twin, plain)):
        module(x).square().sum().backward()
        optimizer.step()
    step = twin.weight.detach() - start
    assert torch.allclose(net.weight.detach() - start, torch.where(new, step / 5, step), atol=1e-7)
    assert torch.equal(net.bias, twin.bias)
    for _ in range(5):
        before = net.weight.detach().clone()
        slow.step()
    assert torch.equal(newcomers.state()["step"] * torch.ones(()), torch.tensor(6.0))
    assert newcomers.state()["entries"] == []
    assert not torch.equal(before, net.weight)


def test_a_weight_that_has_become_large_takes_longer_steps() -> None:
    """Each step relative to the size: four times as large as a fresh one, so four times as far; biases are left."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        sizes = {"0.weight": 4.0, "1.weight": 0.5}  # over those that torch draws, of uniform in 1 / sqrt(fan-in)
        for name, size in sizes.items():
            weight = net.get_parameter(name)
            weight.copy_(torch.where(torch.arange(weight.numel()).view_as(weight) % 2 == 0, 1.0, -1.0))
            weight.mul_(size * (1 / (3 * weight.shape[1])) ** 0.5)
    ends = {}
    for boost in (1.0, 3.0, 10.0):
        mine = copy.deepcopy(net)
        optimizer = MAKERS["adamw"](mine.parameters())
        newcomers = Newcomers(optimizer, Pace(warm_up=0, boost=boost))
        newcomers.welcome(mine, {"0.bias": torch.zeros(4)})
        newcomers.restore(mine, newcomers.state())
        mine(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        ends[boost] = {name: p.detach() - net.get_parameter(name).detach() for name, p in mine.named_parameters()}
    for boost, factor in ((3.0, 3.0), (10.0, 4.0)):
        for name, step in ends[boost].items():
            expected = ends[1.0][name] * (factor if name == "0.weight" else 1.0)
            assert torch.allclose(step, expected, rtol=1e-4, atol=1e-6), (boost, name)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adagrad, torch.optim.SGD])
def test_an_optimizer_that_forgets_steps_as_a_new_one(kind: type[torch.optim.Optimizer]) -> None:
    net = nn.Linear(3, 4)
    optimizer = kind(net.parameters(), lr=0.1)  # type: ignore[call-arg]
    newcomers = Newcomers(optimizer, Pace(warm_up=0, forget=True))
    for _ in range(3):
        net(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    newcomers.welcome(net, {"bias": torch.zeros(4)})
    twin = copy.deepcopy(net)
    fresh = kind(twin.parameters(), lr=0.1)  # type: ignore[call-arg]
    for _ in range(2):
        for module, mine in ((net, optimizer), (twin, fresh)):
            mine.zero_grad()
            module(torch.ones(2, 3)).square().sum().backward()
            mine.step()
    assert torch.equal(net.weight, twin.weight)


@pytest.mark.parametrize("boost", [1.0, 10.0])
def test_a_state_goes_on_where_it_was(boost: float) -> None:
    ends = []
    for resumed in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(3, 4)
        with torch.no_grad():
            net.weight.mul_(5)
        optimizer = MAKERS["adamw"](net.parameters())
        newcomers = Newcomers(optimizer, Pace(warm_up=6, boost=boost))
        newcomers.welcome(net, {"weight": torch.zeros(4, 3)})
        for number in range(4):
            if resumed and number == 2:
                state = newcomers.state()
                newcomers.welcome(net, {})
                newcomers.restore(net, state)
            optimizer.zero_grad()
            net(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
        ends.append(net.weight.detach())
    assert torch.equal(*ends)


def test_new_entries_are_appended_ones_and_no_copies() -> None:
    graph = small.graph()
    mutations = ["split(0, units=[1, 2])", "widen(2, extra=2)", "widen(0, extra=1)", "deepen(1, kind=mlp)"]
    found = newness(graph, mutations, seed=3)
    new = found.entries
    rows = new["0.weight"].all(1)
    assert rows.tolist() == [False] * 8 + [True], "copies are known, the appended row is not"
    assert new["2.weight"].shape == (7, 9)
    assert new["2.weight"][:5, :8].any().item() is False
    assert new["2.weight"][5:].all()
    assert new["2.weight"][:, 8].all()
    assert all(bool(entries.all()) for name, entries in new.items() if "deepen" in name)
    assert "6.weight" not in new
    assert all(bool((found.paces[name][entries] == 0).all()) for name, entries in new.items())
    assert "6.weight" not in found.paces


@pytest.mark.parametrize("apart", ["false", "true"])
def test_shares_begin_at_one_over_their_number_and_copies_as_they_are_read(apart: str) -> None:
    graph = small.graph()
    mutation = f"split(0, units=[1, 2], copies=3, apart={apart})"
    paces = newness(graph, [mutation], seed=3).paces
    third = torch.tensor(1 / 3)
    expected = torch.ones(5, 10)
    expected[:, [1, 2, 6, 7, 8, 9]] = third
    assert torch.equal(paces["2.weight"], expected)
    assert "4.weight" not in paces
    whole = graph.module.get_parameter("2.weight").detach().double()
    copies = gg.apply(graph, mutation, seed=3).module.get_parameter("2.weight").detach().double()
    for unit, places in ((1, [1, 6, 8]), (2, [2, 7, 9])):
        further = sum(float(copies[:, place].norm() / whole[:, unit].norm()) for place in places)
        assert paces["0.weight"][places].flatten().tolist() == pytest.approx([1 / max(1, further)] * 18)
        assert paces["0.bias"][places].tolist() == pytest.approx([1 / max(1, further)] * 3)
        assert further > 1.2 or apart == "false"
    assert bool((paces["0.weight"][[0, 3, 4, 5]] == 1).all())


def test_copies_of_a_unit_that_nothing_reads_begin_as_what_is_new_if_they_are_read_with_v_and_minus_v() -> None:
    graph = small.graph()
    with torch.no_grad():
        graph.module.get_parameter("2.weight")[:, 1] = 0
    found = newness(graph, ["split(0, units=[1], apart=true)"], seed=3)
    assert found.entries == {}, "they are copies all the same"
    assert found.paces["0.bias"].tolist() == [1, 0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("copies", [2, 3])
def test_shares_together_begin_at_the_pace_of_the_whole(copies: int) -> None:
    """Under SGD without momentum: the sum of all shares moves as the one weight does in the net that is not split."""
    moves = []
    for split in (False, True):
        graph = small.graph()
        optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1)
        newcomers = Newcomers(optimizer, Pace(warm_up=10_000))
        grown = graph
        if split:
            mutation = f"split(0, copies={copies})"
            new = newness(graph, [mutation], seed=3)
            grown = gg.apply(graph, mutation, seed=3, optimizer=optimizer)
            newcomers.welcome(grown.module, new.paces)
        weight = grown.module.get_parameter("2.weight")
        before = weight.detach().clone()
        small.loss(grown.module).backward()
        optimizer.step()
        moves.append((weight.detach() - before).unflatten(1, (-1, 6)).sum(1))
    assert torch.allclose(moves[0], moves[1], rtol=1e-3, atol=1e-7)


def test_under_adam_the_function_changes_no_faster_when_copies_are_pulled_apart() -> None:
    """What the first steps of the weights in front change at the readers, over what it is without a split."""
    torch.manual_seed(0)
    front = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 64))
    inputs, wanted = torch.randn(256, 8), torch.randn(256, 64)
    changes = {}
    for mutation in ("", "split(0)", "split(0, apart=true)"):
        graph = gg.trace(copy.deepcopy(front), inputs[:2])
        optimizer = torch.optim.Adam(graph.module.parameters(), lr=1e-3)
        for _ in range(50):
            optimizer.zero_grad()
            (graph.module(inputs) - wanted).square().mean().backward()
            optimizer.step()
        newcomers, grown = Newcomers(optimizer, Pace(warm_up=10_000)), graph
        if mutation:
            new = newness(graph, [mutation], seed=3)
            grown = gg.apply(graph, mutation, seed=3, optimizer=optimizer)
            newcomers.welcome(grown.module, new.paces)
        reading = grown.module.get_parameter("1.weight").detach().clone()
        before = grown.module.get_parameter("0.weight").detach().clone()
        optimizer.zero_grad()
        (grown.module(inputs) - wanted).square().mean().backward()
        optimizer.step()
        changes[mutation] = float((reading @ (grown.module.get_parameter("0.weight").detach() - before)).norm())
    assert changes["split(0)"] < 1.1 * changes[""]
    assert changes["split(0, apart=true)"] < 1.1 * changes[""]
    assert changes["split(0, apart=true)"] > 0.5 * changes[""], changes


@pytest.mark.parametrize("centered", [False, True])
def test_squares_of_a_new_block_are_no_smaller_than_those_of_its_first_gradient(centered: bool) -> None:
    """A neighbour's may be: then the first steps of RMSprop, which corrects for nothing, would be too long."""
    graph = small.graph()
    alpha = 0.9
    optimizer = torch.optim.RMSprop(graph.module.parameters(), lr=1e-3, alpha=alpha, centered=centered)
    graph.module(small.INPUTS).square().sum().backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["square_avg"].fill_(1e-12)
    mutations = ["deepen(1, kind=mlp)"]
    new = newness(graph, mutations, 0)
    newcomers = Newcomers(optimizer, Pace(warm_up=4))
    child = gg.apply(graph, mutations, optimizer=optimizer)
    newcomers.welcome(child.module, new.paces)
    optimizer.zero_grad()
    child.module(small.INPUTS).square().sum().backward()
    optimizer.step()
    last = child.module.get_parameter("1_deepen.linear2.weight")
    first = child.module.get_parameter("1_deepen.linear1.weight")
    assert last.grad is not None
    assert first.grad is not None
    level = float(last.grad.square().mean())
    assert level > 1e-6
    wanted = alpha * level + (1 - alpha) * last.grad.square()
    assert torch.allclose(optimizer.state[last]["square_avg"], wanted, rtol=1e-5)
    assert float(first.grad.abs().max()) == 0.0, "it is read with zeros still"
    assert torch.allclose(optimizer.state[first]["square_avg"], torch.full_like(first, alpha * 1e-12))
    old = child.module.get_parameter("0.weight")
    assert old.grad is not None
    squares = alpha * 1e-12 + (1 - alpha) * old.grad.square()
    assert torch.allclose(optimizer.state[old]["square_avg"], squares), "what was there goes on as it was"


def test_the_default_is_slower_where_nothing_corrects_for_few_gradients() -> None:
    parameters = list(nn.Linear(2, 2).parameters())
    assert Pace.under(torch.optim.AdamW(parameters)) == Pace()
    assert Pace.under(torch.optim.RMSprop(parameters)) == Pace(warm_up=200)
