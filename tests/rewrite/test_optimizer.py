"""Optimizer state that follows a growth: in place, and as the gradients of the grown network say.

With a learning rate of 0 the first moment after one step is the gradient itself (or a known multiple). What the
migration makes of it is compared with the gradient of the grown network, which autograd works out by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.ir.editor import Editor
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.network import Network, Step

INPUT = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(5, 3)
BETAS = (0.9, 0.99)


def _net(norm: nn.Module | None = None, outputs: int = 1) -> nn.Sequential:
    """Three linear layers; with a single output the last hidden units are read by one weight each."""
    layers = [nn.Linear(3, 4), norm or nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, outputs)]
    return nn.Sequential(*layers).double()


class Lion(Optimizer):
    """Chen et al. 2023: the sign of a mean of gradients; unknown to graphgrow until it is registered."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    mean = state.setdefault("exp_avg", torch.zeros_like(p))
                    state["step"] = state.get("step", 0) + 1
                    p.sub_(mean.lerp(p.grad, 1 - BETAS[0]).sign(), alpha=group["lr"])
                    mean.lerp_(p.grad, 1 - BETAS[1])


gg.register_optimizer(Lion, exp_avg="moment")

Maker = Callable[[Any], Optimizer]
_TINY = 1e-300
MAKERS: dict[str, Maker] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.0, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.0, betas=BETAS),
    "amsgrad": lambda parameters: torch.optim.Adam(parameters, lr=0.0, betas=BETAS, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=0.0),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=0.0, foreach=True),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=0.0, fused=True),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=0.0, betas=BETAS),
    "radam": lambda parameters: torch.optim.RAdam(parameters, lr=0.0, betas=BETAS),
    "adamax": lambda parameters: torch.optim.Adamax(parameters, lr=0.0, betas=BETAS, eps=_TINY),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.0),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.0, alpha=0.75, eps=_TINY),
    "centred": lambda parameters: torch.optim.RMSprop(
        parameters, lr=0.0, alpha=0.75, centered=True, momentum=0.9, eps=_TINY
    ),
    "lion": lambda parameters: Lion(parameters, lr=0.0),
}
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


def _backward(module: nn.Module) -> dict[str, torch.Tensor]:
    module.zero_grad()
    module(INPUT).square().sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def _stepped(graph: Graph, kind: str) -> tuple[Optimizer, dict[str, torch.Tensor]]:
    optimizer = MAKERS[kind](graph.module.parameters())
    gradients = _backward(graph.module)
    optimizer.step()
    return optimizer, gradients


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


@pytest.mark.parametrize("kind", MAKERS)
def test_copies_have_their_share_of_the_gradient(kind: str) -> None:
    """A unit that one weight reads: its copies, read with shares a and 1 - a, have a g and (1 - a) g."""
    graph = gg.trace(_net(), INPUT)
    optimizer, old = _stepped(graph, kind)
    grown = gg.apply(graph, "split(2)", seed=3, optimizer=optimizer)
    new = _backward(grown.module)
    for name, parameter in grown.module.named_parameters():
        _assert_follows(optimizer, kind, parameter, new[name], [], name)
    read, whole = (dict(g.module.named_parameters())["4.weight"] for g in (grown, graph))
    shares = read / whole.repeat(1, 2)
    expected = torch.cat([old["2.weight"]] * 2) * shares.T
    assert _close(new["2.weight"], expected), "the gradient of a copy is its share of the unit's"


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("norm", [None, nn.RMSNorm(4, eps=1e-3)])
def test_old_entries_keep_what_belongs_to_their_gradient(kind: str, norm: nn.Module | None) -> None:
    """Appended units: also behind an RMS norm, whose weight is scaled and its gradient with it."""
    graph = gg.trace(_net(norm), INPUT)
    optimizer, _ = _stepped(graph, kind)
    grown = gg.apply(graph, ["widen(0, extra=3)"], optimizer=optimizer)
    new = _backward(grown.module)
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
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "adam")
    before = optimizer.state[dict(graph.module.named_parameters())["0.weight"]]["exp_avg_sq"].clone()
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    state = optimizer.state[dict(grown.module.named_parameters())["0.weight"]]
    assert torch.equal(state["exp_avg"][4:], torch.zeros(2, 3, dtype=torch.float64))
    assert _close(state["exp_avg_sq"][4:], before.mean(0, keepdim=True).expand(2, 3))


def test_groups_are_edited_in_place_and_schedulers_go_on() -> None:
    graph = gg.trace(_net(), INPUT)
    named = dict(graph.module.named_parameters())
    first: dict[str, Any] = {"params": [p for n, p in named.items() if "bias" in n], "lr": 0.5, "weight_decay": 0.1}
    second: dict[str, Any] = {"params": [p for n, p in named.items() if "weight" in n]}
    optimizer = torch.optim.SGD([first, second], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    _backward(graph.module)
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
    _backward(grown.module)
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in children.items())


def test_an_optimizer_without_state_gets_the_new_parameters() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1)
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer, share=False)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in grown.module.parameters()}
    assert not optimizer.state


def test_parameters_that_are_not_trained_are_left_alone() -> None:
    graph = gg.trace(_net(), INPUT)
    last = dict(graph.module.named_parameters())["4.bias"]
    optimizer = torch.optim.Adam([last], lr=0.0)
    _backward(graph.module)
    optimizer.step()
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    assert optimizer.param_groups[0]["params"] == [last]
    assert dict(grown.module.named_parameters())["4.bias"] is last


def _everything(optimizer: Optimizer) -> list[Any]:
    state = [(id(p), {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in s.items()})
             for p, s in optimizer.state.items()]  # fmt: skip
    return [[[id(p) for p in group["params"]] for group in optimizer.param_groups], str(state)]


def test_an_unknown_optimizer_is_refused_and_unchanged() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer = torch.optim.Rprop(graph.module.parameters())
    _backward(graph.module)
    optimizer.step()
    before, ledger = _everything(optimizer), graph.ledger
    with pytest.raises(gg.OptimizerError, match=r"Rprop cannot be carried over; known are Adagrad, Adam, AdamW, .*RMS"):
        gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    assert _everything(optimizer) == before
    assert graph.ledger is ledger


def test_an_unknown_state_is_refused_and_unchanged() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "adam")
    first = dict(graph.module.named_parameters())["0.weight"]
    optimizer.state[first]["mystery"] = torch.zeros_like(first)
    before = _everything(optimizer)
    with pytest.raises(gg.OptimizerError, match="mystery"):
        gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    assert _everything(optimizer) == before


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.zeros(4, 1, dtype=torch.float64), r"shape \(4, 1\)"), ([torch.zeros(4, 3)], "type list")],
)
def test_a_state_of_another_form_is_refused(value: Any, message: str) -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "lion")
    optimizer.state[dict(graph.module.named_parameters())["0.weight"]]["exp_avg"] = value
    with pytest.raises(gg.OptimizerError, match=message):
        gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    with pytest.raises(gg.OptimizerError, match=r"exp_avg='momentum'; there are moment, square, magnitude, direction"):
        gg.register_optimizer(Lion, exp_avg="momentum")


@pytest.mark.parametrize("kind", MAKERS)
def test_squares_and_magnitudes_of_new_entries_are_means_and_all_else_is_zero(kind: str) -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, kind)
    before = {k: v.clone() for k, v in optimizer.state[graph.module.get_parameter("0.weight")].items()
              if isinstance(v, torch.Tensor)}  # fmt: skip
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    after = optimizer.state[grown.module.get_parameter("0.weight")]
    for key in AFTER_ONE_STEP.get(kind, _ADAM):
        divides = key in ("exp_avg_sq", "square_avg", "sum", "exp_inf")
        expected = before[key].mean(0, keepdim=True) if divides else torch.zeros(1, 3, dtype=torch.float64)
        assert _close(after[key][4:], expected.expand(2, 3)), key


def test_a_list_that_fails_leaves_the_optimizer_unchanged() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "adamw")
    before = _everything(optimizer)
    with pytest.raises(gg.MutationError):
        gg.apply(graph, ["widen(0, extra=2)", "split(nowhere)"], optimizer=optimizer)
    assert _everything(optimizer) == before


# -- parameters that come and go -----------------------------------------------------------------------------


def _ids(optimizer: Optimizer) -> list[int]:
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


def _names(graph: Graph, parameters: Any) -> set[str]:
    known = {id(p): name for name, p in graph.module.named_parameters()}
    return {known[id(p)] for p in parameters}


CHAIN = [
    "deepen(1, kind=mlp)",
    "widen(1_deepen.linear1, extra=2)",
    "deepen(3, kind=identity)",
    "split(1_deepen.linear1, units=[0])",
    "widen(0, extra=1)",
    "swap-activation(3, to=prelu)",
    "add-branch(2, kind=low-rank)",
]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_optimizer_has_exactly_the_childs_parameters(kind: str, share: bool) -> None:
    """Through a list in which new parameters are themselves replaced."""
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, kind)
    grown = gg.apply(graph, CHAIN, seed=2, optimizer=optimizer, share=share)
    found = _ids(optimizer)
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in grown.module.parameters()}
    assert {id(p) for p in optimizer.state} <= set(found)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    before = {name: p.detach().clone() for name, p in grown.module.named_parameters()}
    for _ in range(2):
        _backward(grown.module)
        optimizer.step()
    still = {name for name, p in grown.module.named_parameters() if torch.equal(p, before[name])}
    assert still == set()


def test_new_parameters_join_the_group_of_the_nearest() -> None:
    """Those that stand in front are nearer than those behind; a block goes with what its site is made by."""
    graph = gg.trace(_net(), INPUT)
    first = [p for name, p in graph.module.named_parameters() if name.startswith("0.")]
    others = [p for name, p in graph.module.named_parameters() if not name.startswith("0.")]
    slow: dict[str, Any] = {"params": first, "lr": 0.001, "weight_decay": 0.5}
    fast: dict[str, Any] = {"params": others}
    optimizer = torch.optim.AdamW([slow, fast], lr=0.1)
    _backward(graph.module)
    optimizer.step()
    lists = [group["params"] for group in optimizer.param_groups]
    grown = gg.apply(graph, ["deepen(1, kind=mlp)", "deepen(3, kind=mlp)", "deepen(0, kind=identity)"],
                     optimizer=optimizer)  # fmt: skip
    assert all(group["params"] is params for group, params in zip(optimizer.param_groups, lists, strict=True))
    names = [_names(grown, params) for params in lists]
    assert {name.partition(".")[0] for name in names[0]} == {"0", "1_deepen", "0_deepen"}
    assert {name.partition(".")[0] for name in names[1]} == {"2", "4", "3_deepen"}
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.001, 0.5), (0.1, 0.01)]
    fresh = [p for name, p in grown.module.named_parameters() if "deepen" in name]
    assert not any(p in optimizer.state for p in fresh), "no state: their step count begins at one"
    _backward(grown.module)
    optimizer.step()
    assert {int(optimizer.state[p]["step"]) for p in fresh if p.grad is not None} == {1}
    assert {int(optimizer.state[p]["step"]) for p in (*first, *others)} == {2}


def test_a_new_parameter_stands_beside_one_that_is_trained() -> None:
    """With a frozen body, the nearest that the optimizer trains is the head."""
    graph = gg.trace(_net(), INPUT)
    head = [p for name, p in graph.module.named_parameters() if name.startswith("4.")]
    optimizer = torch.optim.SGD(head, lr=0.1, momentum=0.9)
    grown = gg.apply(graph, "deepen(1, kind=mlp)", optimizer=optimizer)
    found = _names(grown, optimizer.param_groups[0]["params"])
    assert {name.partition(".")[0] for name in found} == {"4", "1_deepen"}


def test_a_new_parameter_between_an_input_and_no_map_joins_those_beside_it() -> None:
    """The router of new experts reads an input, and what it is read by has no parameters."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.left(x) @ self.right(y).T)

    torch.manual_seed(0)
    graph = gg.trace(Towers().double(), (INPUT, INPUT))
    optimizer = MAKERS["adam"](graph.module.parameters())
    grown = gg.apply(graph, "upcycle-experts(right)", optimizer=optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in grown.module.parameters()}


def test_an_optimizer_of_something_else_is_refused() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer = torch.optim.SGD(_net().parameters(), lr=0.1)
    before = _everything(optimizer)
    with pytest.raises(gg.OptimizerError, match=r"trains no parameter that a new one could stand beside; make it from"):
        gg.apply(graph, "deepen(1, kind=mlp)", optimizer=optimizer)
    assert _everything(optimizer) == before


@dataclass(frozen=True)
class Bypass(Mutation):
    """Take a module out: what read it reads its input. (No pass does so much; it is here to let parameters go.)"""

    site: str
    name: ClassVar[str] = "bypass"
    summary: ClassVar[str] = "take a module out"

    @classmethod
    def sites(cls, network: Network) -> Iterator[Mutation | Refusal]:
        """None."""
        return iter(())

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Take it out."""
        node = editor.node(network.sites.find(self.site).name)
        node.replace_all_uses_with(node.all_input_nodes[0])
        editor.module.graph.erase_node(node)
        editor.module.delete_submodule(str(node.target))
        return Step(), []


def test_parameters_that_are_gone_are_let_go() -> None:
    """Those of the parent, with their state, and those that came and went within one list."""
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "adam")
    gone = list(graph.module.get_submodule("2").parameters())
    kept = [p for p in graph.module.parameters() if all(p is not q for q in gone)]
    moments = [optimizer.state[p]["exp_avg"].clone() for p in kept]
    grown = gg.apply(
        graph, ["deepen(3, kind=identity)", Bypass("3_deepen.activation"), Bypass("2")], optimizer=optimizer
    )
    assert set(_ids(optimizer)) == {id(p) for p in grown.module.parameters()}
    assert not any(p in optimizer.state for p in gone)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], m) for p, m in zip(kept, moments, strict=True))
    _backward(grown.module)
    optimizer.step()


def test_a_replaced_parameter_that_is_gone_later_is_let_go() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "adam")
    grown = gg.apply(graph, ["split(2)", "split(0)", Bypass("3")], optimizer=optimizer)
    assert set(_ids(optimizer)) == {id(p) for p in grown.module.parameters()}
    square = gg.apply(grown, ["deepen(1, kind=identity)", "split(1_deepen.linear)"], optimizer=optimizer)
    assert set(_ids(optimizer)) == {id(p) for p in square.module.parameters()}
    assert len(optimizer.state) == len(list(graph.module.parameters()))


def test_a_list_that_fails_leaves_newcomers_out() -> None:
    graph = gg.trace(_net(), INPUT)
    optimizer, _ = _stepped(graph, "adamw")
    before = _everything(optimizer)
    for broken in ("deepen(nowhere)", "deepen(1, kind=conv)", "deepen(1, kind=attention)"):
        with pytest.raises(gg.GraphGrowError):
            gg.apply(
                graph,
                ["deepen(1, kind=mlp)", "split(1_deepen.linear1)", Bypass("2"), broken],
                optimizer=optimizer,
                share=False,
            )
        assert _everything(optimizer) == before


def test_tied_parameters_join_once() -> None:
    """A copied block keeps its inner tie, and what is tied to the outside is there already."""
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    block[2].weight = block[0].weight
    model = nn.Sequential(nn.Linear(3, 3), block, nn.Linear(3, 1)).double()
    model[2].bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    model[0].bias = block[0].bias
    graph = gg.trace(model, INPUT)
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1)
    grown = gg.apply(graph, "deepen(1, kind=copy)", optimizer=optimizer)
    found = _ids(optimizer)
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in grown.module.parameters()}
    new = {name for name, _ in grown.module.named_parameters()} - {name for name, _ in graph.module.named_parameters()}
    assert new == {"1_deepen.0.weight", "1_deepen.2.bias", "1_deepen_gate.gate.gate"}


def test_an_optimizer_of_named_parameters_keeps_its_names() -> None:
    """Old parameters by the names that the user gave them, new ones by the graph's; those that are gone are no more."""
    graph = gg.trace(_net(), INPUT)
    optimizer = torch.optim.Adam([(f"net.{name}", p) for name, p in graph.module.named_parameters()], lr=0.1)
    _backward(graph.module)
    optimizer.step()
    grown = gg.apply(graph, ["widen(0, extra=1)", "deepen(3, kind=identity)"], optimizer=optimizer)
    (group,) = optimizer.param_groups
    new = ["3_deepen.linear.weight", "3_deepen.linear.bias", "3_deepen.activation.weight"]
    old = [name for name, _ in graph.module.named_parameters()]
    assert group["param_names"] == [*(f"net.{name}" for name in old), *new]
    assert [id(p) for p in group["params"]] == [id(grown.module.get_parameter(name)) for name in (*old, *new)]
    bare = gg.apply(grown, Bypass("3_deepen.activation"), optimizer=optimizer)
    assert group["param_names"] == [*(f"net.{name}" for name in old), *new[:2]]
    assert set(_ids(optimizer)) == {id(p) for p in bare.module.parameters()}
    again = torch.optim.Adam(bare.module.named_parameters(), lr=0.2)
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr"] == 0.1
