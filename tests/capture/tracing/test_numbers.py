"""Numbers of tensors, where Python or an operator wants numbers, are asked in every call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.capture.tracing.between import Between, Net, assert_follows, assert_grows, count, groups, rows
from tests.preserved import assert_preserved


def _overwritten(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    h = h.clone()
    h[count(x) :] = 0
    return h


BETWEEN: dict[str, Between] = {
    "a number": lambda h, x: h * x.mean().item(),
    "a number of rows": lambda h, x: h.new_zeros(int((x > 0).sum()) + 1, 6) + h.mean(0),
    "a slice up to a tensor": lambda h, x: h[: count(x)] * h[-count(x) :],
    "a place by a tensor": lambda h, x: h + h[count(x) - 1],
    "a part by a tensor": lambda h, x: h.narrow(0, count(x) - 1, 1),
    "padded by a tensor": lambda h, x: F.pad(h, (0, 0, 0, count(x))),
    "repeated by a tensor": lambda h, x: h.repeat(count(x), 1),
    "expanded to a tensor": lambda h, x: h[:1].expand(count(x), -1),
    "zeros of a tensor": lambda h, x: torch.zeros(count(x), 1) + h.mean(0),
    "numbers up to a tensor": lambda h, x: h * (torch.arange(count(x)) > 0).sum(),
    "overwritten from a tensor on": _overwritten,
    "rows repeated, one number for all, without axes": lambda h, x: h.repeat_interleave(count(x), 0),
    "parts by a list": lambda h, x: torch.cat(
        [part.flip(0) for part in h.split(torch.bincount(groups(x), minlength=3).tolist())]
    ),
}


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_other_inputs_get_what_the_model_gives_them(name: str) -> None:
    assert_follows(BETWEEN[name])


@pytest.mark.parametrize("name", sorted(set(BETWEEN) - {"a number of rows"}))
def test_the_other_axes_grow(name: str) -> None:
    assert_grows(BETWEEN[name])


def test_a_number_that_the_forward_keeps_in_a_tensor_is_known() -> None:
    """As WaveNet's gates in VITS and WaveGlow are cut; what is cut so grows on either side."""

    def gates(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        channels: Any = torch.IntTensor([2])[0]
        return torch.cat([h[:, :channels].tanh(), h[:, channels:].sigmoid()], 1)

    graph = gg.trace(Net(gates).double().eval(), rows(4).double(), way="fx")
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
        h[: count(x)] = h.mean()
        return h

    model, x = Net(between).eval(), rows(4)
    graph = gg.trace(model, x, way="fx")
    (expected,) = torch.autograd.grad(model(x).sum(), model.first.weight)
    (found,) = torch.autograd.grad(graph.module(x).sum(), model.first.weight)
    assert torch.equal(found, expected)
