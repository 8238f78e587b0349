"""What values decide the form of is asked in every call: other inputs get what the model gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.preserved import assert_preserved


class Net(nn.Module):
    """Two layers, and something between them; the values of inputs decide, none of the width between."""

    def __init__(self, between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.norm(self.first(x)), x))


def _count(x: torch.Tensor) -> Any:
    """A tensor, which torch's types do not admit as a number."""
    return (x[:, 0] > 0).sum()


def _overwritten(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    h = h.clone()
    h[_count(x) :] = 0
    return h


BETWEEN: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "rows of a mask": lambda h, x: h[x[:, 0] > 0],
    "rows of two masks": lambda h, x: h[(x[:, 0] > -1) & ~x[:, 1].isnan()] * 2,
    "columns of a mask behind a slice": lambda h, x: h.t()[:, x[:, 0] > 0].t(),
    "a mask of two axes": lambda h, x: h.unsqueeze(1).expand(-1, 3, -1)[x > 0],
    "masked_select": lambda h, x: h * torch.masked_select(x, x > 0).sum(),
    "nonzero": lambda h, x: h[torch.nonzero(x[:, 0] > 0).squeeze(1)],
    "where": lambda h, x: h[torch.where(x[:, 0] > 0)],
    "argwhere": lambda h, x: h[(x[:, 0] > 0).argwhere()[:, 0]],
    "a number": lambda h, x: h * x.mean().item(),
    "a number of rows": lambda h, x: h.new_zeros(int((x > 0).sum()) + 1, 6) + h.mean(0),
    "a slice up to a tensor": lambda h, x: h[: _count(x)] * h[-_count(x) :],
    "a place by a tensor": lambda h, x: h + h[_count(x) - 1],
    "a part by a tensor": lambda h, x: h.narrow(0, _count(x) - 1, 1),
    "padded by a tensor": lambda h, x: F.pad(h, (0, 0, 0, _count(x))),
    "repeated by a tensor": lambda h, x: h.repeat(_count(x), 1),
    "expanded to a tensor": lambda h, x: h[:1].expand(_count(x), -1),
    "zeros of a tensor": lambda h, x: torch.zeros(_count(x), 1) + h.mean(0),
    "numbers up to a tensor": lambda h, x: h * (torch.arange(_count(x)) > 0).sum(),
    "overwritten from a tensor on": _overwritten,
    "rows repeated": lambda h, x: torch.repeat_interleave(h, _groups(x) + 1, dim=0),
    "columns repeated, by name": lambda h, x: h.t().repeat_interleave(repeats=_groups(x), dim=-1).t(),
    "rows repeated, their number given": lambda h, x: h.repeat_interleave(
        _groups(x), 0, output_size=int(_groups(x).sum())
    ),
    "rows repeated, one number for all": lambda h, x: h.repeat_interleave(_groups(x).sum().view(1), 0),
    "rows repeated, one number for all, without axes": lambda h, x: h.repeat_interleave(_count(x), 0),
    "all entries repeated": lambda h, x: h.repeat_interleave(_count(x).view(1)).view(-1, 6),
    "counts": lambda h, x: h * torch.bincount(_groups(x))[_groups(x)].unsqueeze(1),
    "numbers that occur": lambda h, x: h * torch.unique(_groups(x), return_inverse=True)[1].unsqueeze(1),
    "runs": lambda h, x: h * torch.unique_consecutive(_groups(x)).sum(),
    "parts by a list": lambda h, x: torch.cat(
        [part.flip(0) for part in h.split(torch.bincount(_groups(x), minlength=3).tolist())]
    ),
    "sums over groups": lambda h, x: h.new_zeros(int(_groups(x).max()) + 1, h.shape[1]).index_add(0, _groups(x), h),
}
WIDENS = sorted(set(BETWEEN) - {"a number of rows", "all entries repeated"})


def _groups(x: torch.Tensor) -> torch.Tensor:
    return (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def _rows(count: int) -> torch.Tensor:
    """The last has no entry that is not positive."""
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    x[-1] = x[-1].abs() + 0.1
    return x


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_other_inputs_get_what_the_model_gives_them(name: str) -> None:
    model = Net(BETWEEN[name]).eval()
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    graph = gg.trace(model, _rows(4), way="fx")
    assert graph.modes == {"train", "eval"}
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in model.named_buffers())
    for count in (1, 4, 9):
        assert torch.equal(graph.module(_rows(count)), model(_rows(count)))


@pytest.mark.parametrize("name", WIDENS)
def test_what_is_chosen_from_grows_in_its_other_axes(name: str) -> None:
    model = Net(BETWEEN[name]).double().eval()
    graph = gg.trace(model, _rows(4).double(), way="fx")
    wider = gg.apply(graph, "widen(first, extra=2)")
    assert_preserved(graph, wider)
    grown = gg.apply(wider, "split(first)")
    assert_preserved(wider, grown)
    assert gg.verify(graph, grown).preserved
    inputs = _rows(7).double()
    torch.testing.assert_close(grown.module(inputs), model(inputs), rtol=1e-12, atol=1e-12)


def test_a_number_that_the_forward_keeps_in_a_tensor_is_known() -> None:
    """As WaveNet's gates in VITS and WaveGlow are cut; what is cut so grows on either side."""

    def gates(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        channels: Any = torch.IntTensor([2])[0]
        return torch.cat([h[:, :channels].tanh(), h[:, channels:].sigmoid()], 1)

    graph = gg.trace(Net(gates).double().eval(), _rows(4).double(), way="fx")
    growths = list(graph.mutations("widen"))
    assert any("first:1" in str(growth) for growth in growths)
    for growth in growths:
        grown = gg.apply(graph, growth)
        assert_preserved(graph, grown)
        assert gg.verify(graph, grown).preserved


class Downsampled(nn.Module):
    """A strided convolution with the padding that it lacks, worked out from buffers, as codecs of audio do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv1d(2, 6, 5, stride=2), nn.Conv1d(6, 2, 1)
        self.kernel, self.stride = nn.Buffer(torch.tensor(5)), nn.Buffer(torch.tensor(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames: Any = torch.ceil((x.shape[-1] - self.kernel) / self.stride + 1).to(torch.int64) - 1
        x = F.pad(x, (3, frames * self.stride + self.kernel - x.shape[-1]))
        result: torch.Tensor = self.last(self.first(x).relu())
        return result


def test_padding_that_buffers_and_sizes_decide_follows_the_length() -> None:
    model = Downsampled().double().eval()
    graph = gg.trace(model, torch.randn(2, 2, 14).double(), way="fx")
    grown = gg.apply(graph, "widen(first, extra=2)")
    assert gg.verify(graph, grown).preserved
    for length in (9, 14, 15, 20):
        x = torch.randn(2, 2, length).double()
        torch.testing.assert_close(grown.module(x), model(x), rtol=1e-12, atol=1e-12)


def test_a_tensor_in_the_place_of_a_number_keeps_its_gradient_where_it_is_one() -> None:
    """What is written is a tensor without axes as well; it must not become a number."""

    def between(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        h[: _count(x)] = h.mean()
        return h

    model, x = Net(between).eval(), _rows(4)
    graph = gg.trace(model, x, way="fx")
    (expected,) = torch.autograd.grad(model(x).sum(), model.first.weight)
    (found,) = torch.autograd.grad(graph.module(x).sum(), model.first.weight)
    assert torch.equal(found, expected)


def _kept(write: Callable[[torch.Tensor, torch.Tensor], None]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def between(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        write(h, x)
        return h

    return between


WRITTEN: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {
    "a number": lambda h, x: h.__setitem__(x[:, 0] > 0, 0.5),
    "a number where the width says so": lambda h, x: h.__setitem__(h > 0.3, 0.3),
    "a tensor without axes": lambda h, x: h.__setitem__(x[:, 0] > 0, h.mean()),
    "a row": lambda h, x: h.__setitem__(x[:, 0] > 0, h[-1].clone()),
    "rows": lambda h, x: h.__setitem__((x[:, 0] > 0, slice(None)), h[x[:, 0] > 0] * 2),
    "columns": lambda h, x: h.t().__setitem__((slice(None), x[:, 0] > 0), 1),
    "a mask of two axes": lambda h, x: h.unsqueeze(1).expand(-1, 3, -1).clone().__setitem__(x > 0, 0.0),
    "rows of numbers": lambda h, x: h.__setitem__((x[:, 0] > 0).nonzero(as_tuple=True), h.mean(0)),
}


@pytest.mark.parametrize("way", ["fx", "dynamo"])
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_is_written_where_a_mask_says_so(name: str, way: str) -> None:
    model = Net(_kept(WRITTEN[name])).double().eval()
    try:
        graph = gg.trace(model, _rows(4).double(), way=way)
    except gg.CaptureError:
        assert way == "dynamo"
        return
    for count in (1, 4, 9):
        torch.testing.assert_close(graph.module(_rows(count).double()), model(_rows(count).double()))
    assert way == "dynamo" or graph.group("first").frozen is None
    for mutation in (*graph.mutations("widen"), *graph.mutations("split")):
        grown = gg.apply(graph, mutation)
        assert_preserved(graph, grown)
        assert gg.verify(graph, grown).preserved


def test_whole_numbers_take_a_number_as_torch_writes_it() -> None:
    def between(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        counts = (x[:, 0] * 4).long()
        counts[x[:, 1] > 0] = 2.7  # which becomes 2
        return h * counts.unsqueeze(1)

    model = Net(between).eval()
    graph = gg.trace(model, _rows(4), way="fx")
    assert torch.equal(graph.module(_rows(9)), model(_rows(9)))


def test_what_the_width_decides_does_not_grow() -> None:
    graph = gg.trace(Net(lambda h, x: h[h > 0].reshape(-1, 1).expand(-1, 6)), _rows(4), way="fx")
    assert "looked through for what is not zero" in str(graph.group("first").frozen)


REFUSED: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]] = {
    "a condition": (lambda h, x: h if (x > 0).sum().item() > 3 else -h, "by the number `gt_1`"),
    "a loop": (lambda h, x: sum((h for _ in range(int((x > 0).sum()))), h), "the values"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_path_that_such_a_number_decides_is_refused(name: str) -> None:
    between, message = REFUSED[name]
    with pytest.raises(gg.CaptureError, match=rf"depends on .*{message}.*test_by_values.py:\d+"):
        gg.trace(Net(between), _rows(4), way="fx")


def test_a_path_that_a_count_decides_is_checked_in_every_call() -> None:
    model, inputs = Net(lambda h, x: h if len(h[x[:, 0] > 0]) == 2 else -h).eval(), _rows(4)
    inputs[:, 0] = torch.tensor([1.0, -1.0, 2.0, -2.0])
    graph = gg.trace(model, inputs, way="fx")
    assert torch.equal(graph.module(-inputs), model(-inputs))
    with pytest.raises(ValueError, match="the model decides by the sizes"):
        graph.module(inputs.abs())


def test_without_data_nothing_is_known_of_the_form() -> None:
    with pytest.raises(gg.CaptureError, match="needs the values of a tensor"):
        gg.trace(Net(BETWEEN["rows of a mask"]).to("meta"), _rows(4).to("meta"), way="fx")


def test_random_numbers_are_not_used_up() -> None:
    model, inputs = nn.Sequential(nn.Dropout(0.5), Net(BETWEEN["rows of a mask"])), _rows(4)
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
