"""Optimizer state that follows a growth: in place, and as the gradients of the grown network say.

With a learning rate of 0 the first moment after one step is the gradient itself (or a known multiple). What the
migration makes of it is compared with the gradient of the grown network, which autograd works out by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import graphgrow as gg
from tests.rewrite.optimizers import BETAS, INPUT, MAKERS, Lion, backward, everything, net, stepped

# What each state tensor is after one step, as a multiple of a power of the gradient; written down from torch's docs.
AFTER_ONE_STEP: dict[str, dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "sgd": {"momentum_buffer": lambda g: g},
    "adagrad": {"sum": lambda g: g**2},
    "adamax": {"exp_avg": lambda g: (1 - BETAS[0]) * g, "exp_inf": lambda g: g.abs()},
    "rmsprop": {"square_avg": lambda g: 0.25 * g**2},
    "centred": {
        "square_avg": lambda g: 0.25 * g**2,
        "grad_avg": lambda g: 0.25 * g,
        "momentum_buffer": lambda g: g.sign() / (0.25 - 0.25**2) ** 0.5,
    },
    "lion": {"exp_avg": lambda g: (1 - BETAS[1]) * g},
}
_ADAM: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "exp_avg": lambda g: (1 - BETAS[0]) * g,
    "exp_avg_sq": lambda g: (1 - BETAS[1]) * g**2,
}


def _assert_follows(
    optimizer: Optimizer, kind: str, parameter: nn.Parameter, gradient: torch.Tensor, kept: Any, name: str
) -> None:
    """Every state tensor is what one step with this gradient would have made of it, at the old entries."""
    state = optimizer.state[parameter]
    if "step" in state:
        assert int(state["step"]) == 1, "the step count is carried over"
    for key, expected in AFTER_ONE_STEP.get(kind, _ADAM).items():
        assert state[key].shape == parameter.shape
        assert _close(_restricted(state[key], kept), _restricted(expected(gradient), kept)), f"{key} of {name}"
    if "max_exp_avg_sq" in state:
        assert torch.equal(state["max_exp_avg_sq"], state["exp_avg_sq"])


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("apart", ["false", "true"])
@pytest.mark.parametrize("kind", MAKERS)
def test_copies_have_their_share_of_the_gradient(kind: str, apart: str) -> None:
    """A unit that one weight reads: its copies, read with shares a and 1 - a, have a g and (1 - a) g, a up to 2."""
    graph = gg.trace(net(), INPUT)
    optimizer, old = stepped(graph, kind)
    grown = gg.apply(graph, f"split(2, apart={apart})", seed=3, optimizer=optimizer)
    new = backward(grown.module)
    for name, parameter in grown.module.named_parameters():
        _assert_follows(optimizer, kind, parameter, new[name], [], name)
    read, whole = (dict(g.module.named_parameters())["4.weight"] for g in (grown, graph))
    shares = read / whole.repeat(1, 2)
    assert bool((shares < 0).any()) is (apart == "true")
    expected = torch.cat([old["2.weight"]] * 2) * shares.T
    assert _close(new["2.weight"], expected), "the gradient of a copy is its share of the unit's"


@pytest.mark.parametrize("apart", ["false", "true"])
def test_squares_of_copies_are_those_that_their_own_training_would_have_gathered(apart: str) -> None:
    """400 readers that ask for different things: a copy's mean square is that of its weights, not of its mean share."""
    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 400)).double(), INPUT)
    optimizer = torch.optim.Adagrad(graph.module.parameters(), lr=0.0)
    asked = torch.randn(600, 5, 400, dtype=torch.float64)

    def train(module: nn.Module, mine: Optimizer) -> torch.Tensor:
        for weights in asked:
            mine.zero_grad()
            (module(INPUT) * weights).sum().backward()
            mine.step()
        return mine.state[module.get_parameter("0.weight")]["sum"].clone()

    train(graph.module, optimizer)
    grown = gg.apply(graph, f"split(0, apart={apart})", seed=3, optimizer=optimizer)
    carried = optimizer.state[grown.module.get_parameter("0.weight")]["sum"]
    gathered = train(grown.module, torch.optim.Adagrad(grown.module.parameters(), lr=0.0))
    assert torch.allclose(carried, gathered, rtol=0.2), (carried / gathered).aminmax()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("norm", [None, nn.RMSNorm(4, eps=1e-3)])
def test_old_entries_keep_what_belongs_to_their_gradient(kind: str, norm: nn.Module | None) -> None:
    """Appended units: also behind an RMS norm, whose weight is scaled and its gradient with it."""
    graph = gg.trace(net(norm), INPUT)
    optimizer, _ = stepped(graph, kind)
    grown = gg.apply(graph, ["widen(0, extra=3)"], optimizer=optimizer)
    new = backward(grown.module)
    for name, parameter in grown.module.named_parameters():
        kept = [grown.steps[0].tensors.get(name, {}).get(axis) for axis in range(parameter.dim())]
        _assert_follows(optimizer, kind, parameter, new[name], kept, name)


def _restricted(tensor: torch.Tensor, kept: list[torch.Tensor | None]) -> torch.Tensor:
    for axis, positions in enumerate(kept):
        if positions is not None:
            tensor = tensor.index_select(axis, positions)
    return tensor


def test_new_entries_start_without_momentum_and_with_the_mean_second_moment() -> None:
    """A second moment of 0 would make the first updates several times the learning rate."""
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "adam")
    before = optimizer.state[dict(graph.module.named_parameters())["0.weight"]]["exp_avg_sq"].clone()
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    state = optimizer.state[dict(grown.module.named_parameters())["0.weight"]]
    assert torch.equal(state["exp_avg"][4:], torch.zeros(2, 3, dtype=torch.float64))
    assert _close(state["exp_avg_sq"][4:], before.mean(0, keepdim=True).expand(2, 3))


@pytest.mark.parametrize("kind", ["adagrad", "rmsprop", "centred"])
def test_a_new_parameter_steps_no_further_than_those_beside_it(kind: str) -> None:
    """Neither corrects for the few gradients that it has seen: RMSprop's first step would be 10 learning rates long."""
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, kind)
    square = {"adagrad": "sum"}.get(kind, "square_avg")
    grown = gg.apply(graph, ["deepen(1, kind=mlp)", "widen(0, extra=1)"], optimizer=optimizer)
    new = [p for p in grown.module.parameters() if int(optimizer.state[p]["step"]) == 0]
    assert len(new) == 4
    levels = {float(s[square].mean()) for p, s in optimizer.state.items() if int(s["step"]) == 1}
    for parameter in new:
        state = optimizer.state[parameter]
        assert state[square].shape == parameter.shape
        assert bool((state[square] == state[square].flatten()[0]).all())
        assert any(float(state[square].flatten()[0]) == pytest.approx(level) for level in levels)
        assert all(not bool(state[name].any()) for name in ("grad_avg", "momentum_buffer") if name in state)
    last, group = new[-1], optimizer.param_groups[0]
    before, level = last.detach().clone(), optimizer.state[last][square].clone()
    group["lr"] = 0.1
    backward(grown.module)
    gradient = last.grad
    assert gradient is not None
    optimizer.step()
    if kind == "adagrad":
        expected = 0.1 * gradient / ((level + gradient**2).sqrt() + group["eps"])
    else:
        alpha = group["alpha"]
        mean = (1 - alpha) * gradient if kind == "centred" else torch.zeros_like(gradient)
        expected = 0.1 * gradient / ((alpha * level + (1 - alpha) * gradient**2 - mean**2).sqrt() + group["eps"])
    assert _close(before - last.detach(), expected)


def test_before_the_first_step_a_new_parameter_has_no_state_of_a_neighbour() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer = torch.optim.RMSprop(graph.module.parameters())
    gg.apply(graph, "deepen(1, kind=mlp)", optimizer=optimizer)
    assert not optimizer.state


def test_groups_are_edited_in_place_and_schedulers_go_on() -> None:
    graph = gg.trace(net(), INPUT)
    named = dict(graph.module.named_parameters())
    first: dict[str, Any] = {"params": [p for n, p in named.items() if "bias" in n], "lr": 0.5, "weight_decay": 0.1}
    second: dict[str, Any] = {"params": [p for n, p in named.items() if "weight" in n]}
    optimizer = torch.optim.SGD([first, second], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    backward(graph.module)
    optimizer.step()
    groups = list(optimizer.param_groups)
    lists = [group["params"] for group in groups]
    grown = gg.apply(graph, ["widen(0, extra=2)", "split(2)"], optimizer=optimizer)
    assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
    assert all(group["params"] is params for group, params in zip(groups, lists, strict=True))
    children = dict(grown.module.named_parameters())
    assert all(a is children[n] for a, n in zip(lists[0], [n for n in named if "bias" in n], strict=True))
    assert all(a is children[n] for a, n in zip(lists[1], [n for n in named if "weight" in n], strict=True))
    assert set(optimizer.state) == set(children.values())
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.05]
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    before = {name: p.detach().clone() for name, p in children.items()}
    backward(grown.module)
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in children.items())


def test_an_optimizer_without_state_gets_the_new_parameters() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1)
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer, share=False)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in grown.module.parameters()}
    assert not optimizer.state


def test_parameters_that_are_not_trained_are_left_alone() -> None:
    graph = gg.trace(net(), INPUT)
    last = dict(graph.module.named_parameters())["4.bias"]
    optimizer = torch.optim.Adam([last], lr=0.0)
    backward(graph.module)
    optimizer.step()
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    assert optimizer.param_groups[0]["params"] == [last]
    assert dict(grown.module.named_parameters())["4.bias"] is last


def test_an_unknown_optimizer_is_refused_and_unchanged() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer = torch.optim.Rprop(graph.module.parameters())
    backward(graph.module)
    optimizer.step()
    before, ledger = everything(optimizer), graph.ledger
    with pytest.raises(
        gg.OptimizerError, match=r"Rprop cannot be carried over; known are Adagrad, Adam, AdamW, .*RMS"
    ) as refused:
        gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    assert "_" not in str(refused.value).partition("known are ")[2].partition(". Say")[0]  # no class of our own
    assert everything(optimizer) == before
    assert graph.ledger is ledger


def test_an_unknown_state_is_refused_and_unchanged() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "adam")
    first = dict(graph.module.named_parameters())["0.weight"]
    optimizer.state[first]["mystery"] = torch.zeros_like(first)
    before = everything(optimizer)
    with pytest.raises(gg.OptimizerError, match="mystery"):
        gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    assert everything(optimizer) == before


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.zeros(4, 1, dtype=torch.float64), r"shape \(4, 1\)"), ([torch.zeros(4, 3)], "type list")],
)
def test_a_state_of_another_form_is_refused(value: Any, message: str) -> None:
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "lion")
    optimizer.state[dict(graph.module.named_parameters())["0.weight"]]["exp_avg"] = value
    with pytest.raises(gg.OptimizerError, match=message):
        gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    with pytest.raises(gg.OptimizerError, match=r"exp_avg='momentum'; there are moment, square, magnitude, direction"):
        gg.register_optimizer(Lion, exp_avg="momentum")


@pytest.mark.parametrize("kind", MAKERS)
def test_squares_and_magnitudes_of_new_entries_are_means_and_all_else_is_zero(kind: str) -> None:
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, kind)
    before = {k: v.clone() for k, v in optimizer.state[graph.module.get_parameter("0.weight")].items()
              if isinstance(v, torch.Tensor)}  # fmt: skip
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    after = optimizer.state[grown.module.get_parameter("0.weight")]
    for key in AFTER_ONE_STEP.get(kind, _ADAM):
        divides = key in ("exp_avg_sq", "square_avg", "sum", "exp_inf")
        expected = before[key].mean(0, keepdim=True) if divides else torch.zeros(1, 3, dtype=torch.float64)
        assert _close(after[key][4:], expected.expand(2, 3)), key


def test_a_list_that_fails_leaves_the_optimizer_unchanged() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "adamw")
    before = everything(optimizer)
    with pytest.raises(gg.MutationError):
        gg.apply(graph, ["widen(0, extra=2)", "split(nowhere)"], optimizer=optimizer)
    assert everything(optimizer) == before


# -- parameters that come and go -----------------------------------------------------------------------------
