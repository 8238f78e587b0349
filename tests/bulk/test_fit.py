"""How tensors and settings go from a grown graph into a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.bulk.fit import Fit
from graphgrow.graph import Graph

ROWS = torch.linspace(-1, 1, 15).reshape(5, 3)


class Net(nn.Module):
    """A norm by module, a norm by function, a running mean, a table of its own, and a parameter that nothing uses."""

    def __init__(self, width: int = 4, tied: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.ones(width))
        self.eps = 1e-4
        if twice:
            self.other = 1e-4
        self.middle, self.again = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        if tied:
            self.again.weight = self.middle.weight
        self.batch = nn.BatchNorm1d(2)
        self.last = nn.Linear(width, 2)
        self.unused = nn.Parameter(torch.randn(2))
        self.register_buffer("table", torch.linspace(0, 1, 3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x * self.table))
        y = self.again(self.middle(y))
        y = F.rms_norm(y, (y.shape[-1],), self.scale, self.eps)
        result: torch.Tensor = self.batch(self.last(y))
        return result


WIDER = ["widen(first, extra=2)", "widen(middle, extra=2)", "widen(again, extra=2)"]


def fitted(grown: Graph, model: nn.Module) -> Fit:
    return Fit.of(grown, gg.trace(model, ROWS.to(next(model.parameters()).device)), model, {})


def test_every_tensor_is_named_and_loaded() -> None:
    small, large = Net(), Net(6)
    unused, table = large.unused.clone(), large.get_buffer("table").clone()
    small.batch.get_buffer("running_mean").add_(3)
    grown = gg.apply(gg.trace(small, ROWS), WIDER)
    fit = fitted(grown, large)
    assert set(fit.names) == set(large.state_dict()) - {"unused"}
    assert fit.untouched == ("unused",)
    fit.load(grown, large)
    state = grown.module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in large.state_dict().items() if name != "unused")
    assert torch.equal(large.unused, unused)
    assert torch.equal(large.get_buffer("table"), table)
    assert large.batch.get_buffer("running_mean").eq(3).all()


def test_eps_of_modules_and_of_functions_follow() -> None:
    large = Net(6)
    grown = gg.apply(gg.trace(Net(), ROWS), WIDER)
    fit = fitted(grown, large)
    assert fit.settings == pytest.approx({"norm.eps": 1e-5 * 4 / 6, ".eps": 1e-4 * 4 / 6})
    fit.load(grown, large)
    assert (large.norm.eps, large.eps) == pytest.approx((1e-5 * 4 / 6, 1e-4 * 4 / 6))


def test_an_eps_whose_home_is_not_clear_is_refused() -> None:
    grown = gg.apply(gg.trace(Net(), ROWS), WIDER)
    with pytest.raises(gg.Unsupported, match=r"the eps 0.0001 .* 2 attributes of it have that value"):
        fitted(grown, Net(6, twice=True))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (lambda: Net(5), r"`first.weight` has shape \(5, 3\) in the target and \(4, 3\) in the grown graph"),
        (lambda: Net(tied=True), "the target ties `middle.weight` and `again.weight`, which the graph holds apart"),
        (lambda: Net().double(), r"`first.weight` is torch.float64 in the target and torch.float32 in the graph"),
        (lambda: nn.Sequential(nn.Linear(3, 2)), r"`0.weight` \(2, 3\) of the target is not in the graph"),
    ],
)
def test_refusals(target: Callable[[], nn.Module], why: str) -> None:
    model = target()
    captured = gg.trace(model, ROWS.to(next(model.parameters()).dtype))
    with pytest.raises(gg.Unsupported, match=why):
        Fit.of(gg.trace(Net(), ROWS), captured, model, {})


def test_what_the_target_lacks_is_named() -> None:
    class Shorter(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.batch(self.last(self.norm(self.first(x))))
            return result

    model = Shorter()
    del model.middle, model.again, model.scale
    with pytest.raises(gg.Unsupported, match=r"`scale` \(4,\) of the graph is not in the target"):
        fitted(gg.trace(Net(), ROWS), model)


def test_a_model_without_data_needs_all_of_it() -> None:
    with torch.device("meta"):
        model = Net()
    with pytest.raises(gg.Unsupported, match="`unused` has no values: it is on the meta device"):
        fitted(gg.trace(Net(), ROWS), model)


def test_a_model_without_data_gets_memory_and_stays_tied() -> None:
    small = Net(tied=True)
    with torch.device("meta"):
        model = Net(tied=True)
    del model.unused
    graph = gg.trace(small, ROWS)
    fitted(graph, model).load(graph, model)
    assert model.again.weight is model.middle.weight
    assert torch.equal(
        model.get_buffer("table"), small.get_buffer("table")
    )  # in no state_dict, and loaded all the same
    assert torch.equal(model.eval()(ROWS), small.eval()(ROWS))


def test_an_optimizer_is_handed_over_with_its_state() -> None:
    small, large = Net(tied=True), Net()
    graph = gg.trace(small, ROWS)
    groups: list[dict[str, Any]] = [{"params": small.first.parameters(), "lr": 0.5}, {"params": [small.middle.weight]}]
    optimizer = torch.optim.Adam(groups)
    small(ROWS).sum().backward()
    optimizer.step()
    moments = optimizer.state[small.middle.weight]["exp_avg"].clone()
    fit = fitted(graph, large)
    fit.load(graph, large)
    fit.hand_over(optimizer, graph, large)
    first, second = (group["params"] for group in optimizer.param_groups)
    assert [id(p) for p in first] == [id(p) for p in large.first.parameters()]
    # one tensor of the graph, two of the model: both go on with its state
    assert {id(p) for p in second} == {id(large.middle.weight), id(large.again.weight)}
    assert all(torch.equal(optimizer.state[p]["exp_avg"], moments) for p in second)
    left, right = (optimizer.state[p] for p in second)
    assert all(left[key].data_ptr() != right[key].data_ptr() for key in ("exp_avg", "exp_avg_sq", "step"))
