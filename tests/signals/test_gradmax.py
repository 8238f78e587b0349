"""GradMax scores: against the gradient that autograd gives to units which are really there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import Declined, SignalError
from graphgrow.signals.gradmax import GradMaxSignal, GrowthDirections
from graphgrow.signals.watch import Watch

NETS: dict[str, tuple[Callable[[int], Any], tuple[int, ...]]] = {
    "linear": (lambda n: nn.Sequential(nn.Linear(3, n), nn.Tanh(), nn.Linear(n, 4)), (7, 3)),
    "tokens": (lambda n: nn.Sequential(nn.Linear(3, n), nn.Tanh(), nn.Linear(n, 4)), (7, 5, 3)),
    "conv1d": (lambda n: nn.Sequential(nn.Conv1d(2, n, 3, padding=1), nn.Tanh(), nn.Conv1d(n, 3, 2)), (7, 2, 9)),
    "conv2d": (
        lambda n: nn.Sequential(
            nn.Conv2d(2, n, (3, 2), padding=(1, 0), dilation=(1, 2)), nn.Tanh(), nn.Conv2d(n, 3, 3, stride=2)
        ),
        (5, 2, 8, 9),
    ),
}


def _measured(net: Any, x: torch.Tensor, **options: Any) -> GrowthDirections:
    graph = gg.trace(net, x[:2])
    signal = GradMaxSignal(graph, **options)
    with Watch(graph.module, [signal]):
        graph.module(x).square().mean().backward()
    return signal.results()["0"]


def _with_units(net: Any, build: Callable[[int], Any], outgoing: torch.Tensor) -> Any:
    """The net with new units whose incoming weights are zero and whose reading weights are given."""
    count = len(outgoing)
    wider = build(net[0].weight.shape[0] + count).double()
    with torch.no_grad():
        wider[0].weight.copy_(torch.cat([net[0].weight, torch.zeros(count, *net[0].weight.shape[1:])]))
        wider[0].bias.copy_(torch.cat([net[0].bias, torch.zeros(count)]))
        wider[2].weight.copy_(torch.cat([net[2].weight, outgoing.transpose(0, 1)], 1))
        wider[2].bias.copy_(net[2].bias)
    return wider


@pytest.mark.parametrize("kind", NETS)
def test_a_unit_along_a_singular_vector_gets_a_gradient_of_its_singular_value(kind: str) -> None:
    build, shape = NETS[kind]
    net, x = build(5).double(), torch.randn(shape, dtype=torch.float64)
    found = _measured(net, x)
    wider = _with_units(net, build, found.outgoing[:3])
    loss = wider(x).square().mean()
    assert torch.allclose(loss, net(x).square().mean()), "new units say nothing yet"
    loss.backward()
    gradients = wider[0].weight.grad[5:].flatten(1)
    assert torch.allclose(gradients.norm(dim=1), found.values[:3])
    # what each unit is told to become is the mirror's initial incoming weight
    cosines = (gradients * found.incoming[:3].flatten(1)).sum(1) / gradients.norm(dim=1)
    assert torch.allclose(cosines, torch.ones(3, dtype=torch.float64))
    assert found.score(3) == pytest.approx(float(gradients.norm()))


@pytest.mark.parametrize("kind", NETS)
def test_no_other_reading_weights_of_norm_1_get_more(kind: str) -> None:
    build, shape = NETS[kind]
    net, x = build(4).double(), torch.randn(shape, dtype=torch.float64)
    found = _measured(net, x)
    for _ in range(5):
        other = torch.randn_like(found.outgoing[:1])
        wider = _with_units(net, build, other / other.norm())
        wider(x).square().mean().backward()
        assert float(wider[0].weight.grad[4:].norm()) <= float(found.values[0]) * (1 + 1e-9)


def test_rows_and_random_combinations_estimate_the_same() -> None:
    net, x = nn.Sequential(nn.Linear(300, 6), nn.Tanh(), nn.Linear(6, 5)).double(), torch.randn(64, 300).double()
    exact, estimate = _measured(net, x, rows=64), _measured(net, x, rows=64, most=200)
    assert estimate.score(5) == pytest.approx(exact.score(5), rel=0.2)
    cosines = (exact.outgoing[0] * estimate.outgoing[0]).sum().abs()
    assert float(cosines) > 0.8


def test_only_hidden_groups_between_two_maps() -> None:
    graph = gg.trace("graphgrow:resnet")
    with pytest.raises(Declined, match="one of each is wanted"):
        GradMaxSignal(graph, [graph.group("stem")])
    signal = GradMaxSignal(graph)
    with pytest.raises(SignalError, match=r"loss\.backward"):
        signal.results()
    pooled = gg.trace(nn.Sequential(nn.Conv1d(2, 3, 3), nn.MaxPool1d(2), nn.Conv1d(3, 2, 1)), torch.randn(2, 2, 8))
    with pytest.raises(Declined, match="other positions"):
        GradMaxSignal(pooled, [pooled.group("0")])


class Spelled(nn.Module):
    """Two maps over parameters of no layer's: by addmm over flattened positions, as GPT-2's, or by functions."""

    def __init__(self, hidden: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.first, self.last = nn.Parameter(torch.randn(3, hidden)), nn.Parameter(torch.randn(hidden, 4))
        self.shift = nn.Parameter(torch.randn(hidden))
        if form == "linear":
            self.first, self.last = nn.Parameter(torch.randn(hidden, 3)), nn.Parameter(torch.randn(4, hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "linear":
            return nn.functional.linear(torch.tanh(nn.functional.linear(x, self.first, self.shift)), self.last)
        if self.form == "matmul":
            return torch.tanh(x @ self.first + self.shift) @ self.last
        hidden = torch.tanh(torch.addmm(self.shift, x.view(-1, x.size(-1)), self.first).view(*x.shape[:-1], -1))
        return torch.mm(hidden.view(-1, hidden.size(-1)), self.last).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("form", ["addmm", "matmul", "linear"])
def test_products_with_parameters_are_maps_too(form: str) -> None:
    net, x = Spelled(5, form).double(), torch.randn(7, 6, 3, dtype=torch.float64)
    graph = gg.trace(net, x[:2])
    (group,) = [group for group in graph.groups if group.frozen is None]
    signal = GradMaxSignal(graph, rows=7)
    with Watch(graph.module, [signal]):
        graph.module(x).square().mean().backward()
    found = signal.results()[group.name]
    assert (found.weight, found.columns) == ("first", form != "linear")
    wider = Spelled(7, form).double()
    with torch.no_grad():
        zeros, outgoing = torch.zeros(2, 3), found.outgoing[:2]
        parts = [net.first, zeros], [net.last, outgoing.T]
        if form != "linear":
            parts = [net.first, zeros.T], [net.last, outgoing]
        wider.first.copy_(torch.cat(parts[0], int(form != "linear")))
        wider.last.copy_(torch.cat(parts[1], int(form == "linear")))
        wider.shift.copy_(torch.cat([net.shift, torch.zeros(2)]))
    loss = wider(x).square().mean()
    assert torch.allclose(loss, net(x).square().mean())
    loss.backward()
    assert wider.first.grad is not None
    gradient = wider.first.grad[5:] if form == "linear" else wider.first.grad[:, 5:].T
    assert torch.allclose(gradient.norm(dim=1), found.values[:2])


def test_flattened_positions_count_as_parts_of_their_sample() -> None:
    """So many samples are looked at, not so many rows of the flattened batch."""
    net, x = Spelled(5, "addmm").double(), torch.randn(8, 6, 3, dtype=torch.float64)
    graph = gg.trace(net, x[:2])
    ends = Spelled(5, "matmul").double()
    ends.load_state_dict(net.state_dict())
    other = gg.trace(ends, x[:2])
    found: list[GrowthDirections] = []
    for one in (graph, other):
        signal = GradMaxSignal(one, rows=3)
        with Watch(one.module, [signal]):
            one.module(x).square().mean().backward()
        found.extend(signal.results().values())
    assert torch.allclose(found[0].values, found[1].values)
