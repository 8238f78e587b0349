"""NumPy's names and arguments by name mean what they mean: the same growth as in the usual spelling, and as exact."""

from __future__ import annotations

import linecache
import math
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved

SPELLINGS = [
    ("x.softmax(1)", "x.softmax(axis=1)"),
    ("x.softmax(-1)", "torch.softmax(x, axis=-1)"),
    ("x.mean(1, keepdim=True)", "x.mean(axis=1, keepdims=True)"),
    ("x.mean(1)", "torch.mean(x, axis=1)"),
    ("x.sum(1)", "x.sum(axis=1)"),
    ("x.amax(1)", "x.amax(axis=1)"),
    ("x.max(1)[0]", "x.max(axis=1)[0]"),
    ("x.var(1, keepdim=True)", "x.var(axis=1, keepdims=True)"),
    ("x.cumsum(1)", "torch.cumsum(x, axis=1)"),
    ("x.sort(1)[0]", "x.sort(axis=1)[0]"),
    ("x.unsqueeze(1).squeeze(1)", "x.unsqueeze(axis=1).squeeze(axis=1)"),
    ("torch.cat((x, x), 1)", "torch.concatenate((x, x), axis=1)"),
    ("torch.stack((x, x), 1)", "torch.stack((x, x), axis=1)"),
    ("x.chunk(2, 2)[0]", "torch.chunk(x, 2, axis=2)[0]"),
    ("x.reshape(x.shape[0], 10, -1)", "x.reshape(shape=(x.shape[0], 10, -1))"),
    ("x.view(x.shape[0], 5, 2, -1)", "x.view(size=(x.shape[0], 5, 2, -1))"),
    ("x.permute(0, 2, 1)", "x.permute(dims=(0, 2, 1))"),
    ("torch.permute(x, (0, 2, 1))", "torch.permute(input=x, dims=(0, 2, 1))"),
    ("x.transpose(1, 2)", "x.transpose(dim0=1, dim1=2)"),
    ("x.transpose(1, 2)", "torch.swapaxes(x, axis0=1, axis1=2)"),
    ("x[:, :1].expand(-1, 3, -1)", "x[:, :1].expand(size=(-1, 3, -1))"),
    ("x.repeat(1, 2, 1)", "x.repeat(repeats=(1, 2, 1))"),
    ("x.split(4, 2)[0]", "x.split(split_size=4, dim=2)[0]"),
    ("x.narrow(2, 2, 4)", "torch.narrow(x, dim=2, start=2, length=4)"),
    ("x.flip(1)", "x.flip(dims=(1,))"),
    ("torch.bmm(x, x.mT)", "torch.bmm(x, mat2=x.mH)"),
    ("x.sigmoid() * x - -x / 2", "x.sigmoid().multiply(x).subtract(torch.negative(x).divide(2))"),
    ("torch.nn.functional.selu(x)", "torch.selu(x)"),
    ("torch.nn.functional.threshold(x, 0.1, 0.0)", "torch.threshold(x, 0.1, 0.0)"),
    ("torch.nn.functional.layer_norm(x, (8,))", "torch.layer_norm(x, (8,))"),
    ("x * ((x > 0) & (x < 1)).to(x.dtype)", "x * torch.bitwise_and(x.greater(0), torch.less(x, 1)).to(x.dtype)"),
    ("x * torch.logical_and(x > 0, x < 1).to(x.dtype)", "x * (x > 0).logical_and(x < 1).to(x.dtype)"),
    ("x + x[:, :1].expand(x.shape)", "x + x[:, :1].broadcast_to(x.shape)"),
    ("x + x.detach()", "x + torch.detach(x)"),
    ("x.split([2, 3], 1)[0]", "x.split_with_sizes([2, 3], 1)[0]"),
    ("torch.sigmoid(x)", "torch.special.expit(x)"),
    ("x.softmax(1)", "torch.special.softmax(x, dim=1)"),
    ("torch.lgamma(x.abs() + 1)", "torch.special.gammaln(x.abs() + 1)"),
    ("torch.digamma(x.abs() + 1)", "torch.special.psi(x.abs() + 1)"),
    ("torch.mvlgamma(x.abs() + 1, 2)", "torch.special.multigammaln(x.abs() + 1, 2)"),
    ("x @ x.mT", "torch.linalg.matmul(x, x.mT)"),
    ("x.chunk(2, 2)[0]", "x.unsafe_chunk(2, 2)[0]"),
    ("torch.atan2(x, x + 1)", "x.arctan2(x + 1)"),
    ("x.abs().neg()", "x.absolute().neg_()"),
    ("x.abs().exp()", "(x + 0).abs().exp_()"),
    ("x + x.new_zeros(x.size(0), 5, 8)", "x + x.new(x.size(0), 5, 8).zero_()"),
    ("x + x.new_zeros(x.size())", "x + x.new(x.size()).zero_()"),
    ("x * x.new_tensor([2])", "x * x.new([2])"),
    ("torch.nn.functional.leaky_relu(x, 0.1)", "torch.nn.functional.leaky_relu_(x, 0.1)"),
]


def _model(form: str) -> nn.Module:
    class Spelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(3, 8), nn.LazyLinear(2)

    source = f"def forward(self, x):\n    x = self.a(x)\n    return self.out({form})\n"
    name = f"<{form}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    scope: dict[str, Any] = {"torch": torch, "math": math}
    exec(compile(source, name, "exec"), scope)  # each form is the forward of a model of its own
    Spelled.forward = scope["forward"]
    torch.manual_seed(0)
    model = Spelled().double()
    model(torch.randn(2, 5, 3, dtype=torch.float64))
    return model.eval()


def _grown(form: str) -> tuple[list[tuple[int, str]], list[str]]:
    """Sizes of the groups and why some are frozen; which growths of the first layer are admitted, each checked."""
    graph = gg.trace(_model(form), torch.randn(2, 5, 3, dtype=torch.float64))
    groups = [(group.size, str(group.frozen or "").partition(" (at")[0]) for group in graph.groups]
    admitted = []
    for mutation in [*graph.mutations("widen"), *graph.mutations("split")]:
        assert_preserved(graph, gg.apply(graph, mutation))
        admitted.append(str(mutation))
    return groups, admitted


@pytest.mark.parametrize(("usual", "other"), SPELLINGS, ids=[other for _, other in SPELLINGS])
def test_another_spelling_grows_alike(usual: str, other: str) -> None:
    assert _grown(usual) == _grown(other)


def test_a_function_of_pythons_keeps_its_name() -> None:
    """math.sqrt of a size is no torch.sqrt."""
    graph = gg.trace(_model("x / math.sqrt(x.shape[-1]) + math.exp(x.size(1) / 7)"), torch.randn(2, 5, 3).double())
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    assert graph.module(x).shape == (4, 5, 2)
    assert gg.verify(graph, gg.apply(graph, "split(a)")).preserved is True


@pytest.mark.parametrize(
    "form",
    [
        "torch.layer_norm(x, (8,), None, None, 1e-5, True)",
        "x * torch.bitwise_and(x > 0, other=x < 1)",
        "x + 0 * torch.empty(x.shape, memory_format=torch.contiguous_format).fill_(1)",
    ],
)
def test_what_another_name_does_not_take_is_left(form: str) -> None:
    model = _model(form)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    assert torch.equal(gg.trace(model, x).module(x), model(x))


@pytest.mark.parametrize("p", ["0.7", ""])
@pytest.mark.parametrize("form", ["x.new_empty(x.shape)", "torch.empty(x.shape)", "torch.zeros_like(x)"])
def test_memory_that_is_filled_with_what_is_drawn(form: str, p: str) -> None:
    """As masks of units and of samples are made by hand; what lay in the memory before is of no account."""
    graph = gg.trace(_model(f"x * {form}.bernoulli_({p})"), torch.randn(2, 5, 3, dtype=torch.float64))
    assert gg.verify(graph, gg.apply(graph, "widen(a, extra=2)")).preserved
    with pytest.raises(gg.Declined, match="random numbers are drawn for each copy apart"):
        gg.apply(graph, "split(a)")


def test_a_softmax_by_axis_freezes_that_axis() -> None:
    graph = gg.trace(_model("x.softmax(axis=-1)"), torch.randn(2, 5, 3, dtype=torch.float64))
    with pytest.raises(gg.GraphGrowError, match="a softmax over it"):
        gg.apply(graph, "widen(a, extra=2)")
