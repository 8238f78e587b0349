"""What values decide the form of is asked in every call: other inputs get what the model gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.capture.tracing.between import Between, Net, assert_follows, assert_grows, groups, rows
from tests.preserved import assert_preserved

BETWEEN: dict[str, Between] = {
    "nonzero": lambda h, x: h[torch.nonzero(x[:, 0] > 0).squeeze(1)],
    "counts": lambda h, x: h * torch.bincount(groups(x))[groups(x)].unsqueeze(1),
    "numbers that occur": lambda h, x: h * torch.unique(groups(x), return_inverse=True)[1].unsqueeze(1),
    "runs": lambda h, x: h * torch.unique_consecutive(groups(x)).sum(),
    "sums over groups": lambda h, x: h.new_zeros(int(groups(x).max()) + 1, h.shape[1]).index_add(0, groups(x), h),
}


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_other_inputs_get_what_the_model_gives_them(name: str) -> None:
    assert_follows(BETWEEN[name])


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_the_other_axes_grow(name: str) -> None:
    assert_grows(BETWEEN[name])


def test_what_the_width_decides_does_not_grow() -> None:
    graph = gg.trace(Net(lambda h, x: h[h > 0].reshape(-1, 1).expand(-1, 6)), rows(4), way="fx")
    assert "looked through for what is not zero" in str(graph.group("first").frozen)


REFUSED: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]] = {
    "a condition": (lambda h, x: h if (x > 0).sum().item() > 3 else -h, "by the number `gt_1`"),
    "a loop": (lambda h, x: sum((h for _ in range(int((x > 0).sum()))), h), "the values"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_path_that_such_a_number_decides_is_refused(name: str) -> None:
    between, message = REFUSED[name]
    with pytest.raises(gg.CaptureError, match=rf"depends on .*{message}.*test_by_values.py:\d+"):
        gg.trace(Net(between), rows(4), way="fx")


def test_a_path_that_a_count_decides_is_checked_in_every_call() -> None:
    model, inputs = Net(lambda h, x: h if len(h[x[:, 0] > 0]) == 2 else -h).eval(), rows(4)
    inputs[:, 0] = torch.tensor([1.0, -1.0, 2.0, -2.0])
    graph = gg.trace(model, inputs, way="fx")
    assert torch.equal(graph.module(-inputs), model(-inputs))
    with pytest.raises(ValueError, match="the model decides by the sizes"):
        graph.module(inputs.abs())


def test_without_data_nothing_is_known_of_the_form() -> None:
    with pytest.raises(gg.CaptureError, match="needs the values of a tensor"):
        gg.trace(Net(lambda h, x: h[x[:, 0] > 0]).to("meta"), rows(4).to("meta"), way="fx")


class Overwriting(nn.Module):
    """Overwrites what it has made, or holds, and then asks how many entries are positive."""

    def __init__(self, what: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.what = nn.Linear(3, 6), what
        self.register_buffer("held", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = torch.zeros(6)
        with torch.no_grad():
            written = {"made": made, "buffer": self.held, "parameter": self.first.bias}[self.what]
            written.add_(x.sum())
            written.mul_(2)
        h = self.first(x) * (made + self.held)
        result: torch.Tensor = h[: int((x[:, 0] > 0).sum())] + written.sum().item()
        return result


@pytest.mark.parametrize("what", ["made", "buffer"])
def test_what_is_overwritten_is_not_by_the_capture(what: str) -> None:
    model = Overwriting(what).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = gg.trace(model, rows(4), way="fx")
    for x in (rows(4), -rows(4), rows(9)):
        model.load_state_dict(before)
        found = graph.module(x)
        model.load_state_dict(before)
        assert torch.equal(found, model(x))


def test_a_parameter_that_is_overwritten_stays_what_it_was() -> None:
    model = Overwriting("parameter").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(gg.CaptureError, match="overwrites a parameter"):
        gg.trace(model, rows(4), way="fx")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_random_numbers_are_not_used_up() -> None:
    model, inputs = nn.Sequential(nn.Dropout(0.5), Net(lambda h, x: h[x[:, 0] > 0])), rows(4)
    state = torch.get_rng_state()
    gg.trace(model, inputs, way="fx")
    assert torch.equal(torch.get_rng_state(), state)


def _message_passing(x: torch.Tensor, edges: torch.Tensor, weight: Any) -> torch.Tensor:
    """A graph convolution as libraries write it: loops are dropped by their values, and put back one for each node."""
    edges = edges[:, edges[0] != edges[1]]
    loops = torch.arange(x.size(0), device=x.device)
    source, target = torch.cat((edges, torch.stack((loops, loops))), 1)
    degree = x.new_zeros(x.size(0)).index_add(0, target, torch.ones_like(target, dtype=x.dtype))
    norm = (degree[source] * degree[target]).rsqrt()
    return torch.zeros_like(weight(x)).index_add(0, target, weight(x)[source] * norm[:, None])


class GraphConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return _message_passing(_message_passing(x, edges, self.first).relu(), edges, self.last)


def test_a_graph_convolution_that_drops_loops_grows() -> None:
    """And the graph takes other numbers of nodes, of edges and of loops among them."""
    model = GraphConvolutions().double()
    edges = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 2, 0, 3]])
    graph = gg.trace(model, (torch.randn(4, 3).double(), edges))
    grown = gg.apply(graph, ["widen(first, extra=2)", "split(first, units=[1])"])
    assert_preserved(graph, grown)
    for other in (torch.tensor([[0, 4], [4, 4]]), torch.tensor([[5, 1, 0], [2, 3, 4]])):
        nodes = torch.randn(6, 3).double()
        torch.testing.assert_close(grown.module(nodes, other), model(nodes, other), rtol=1e-12, atol=1e-12)
