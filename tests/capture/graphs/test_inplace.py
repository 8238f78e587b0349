"""In-place operators: the graph computes the same, and its edges show who reads what was written."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.capture.trace import capture
from tests.rewrite.small_models import Forward


def _renamed(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    y = x
    y *= 2
    return x + 1


def _every_augmented_operator(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    names = [x, x]
    x += 1
    x -= 0.5
    x *= 3
    x /= 2
    x **= 2
    whole = (x * 4).round().int()
    other = whole
    whole //= 3
    whole %= 7
    whole &= 5
    whole |= 8
    whole ^= 3
    whole <<= 2
    whole >>= 1
    return names[0], names[1] + x, other, whole


def _a_part(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    y = x[:, :3]
    y.add_(1)
    return x * 2, y


def _the_whole_seen_through_views(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    flat, turned, rows, first = x.view(-1), x.t(), x.unbind(1), x[0]
    x.mul_(2)
    return flat + 1, turned + 1, rows[2] + 1, first + 1


def _activations_on_views(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    a, b = x.chunk(2, dim=1)
    a.relu_()
    F.relu(b.unsqueeze(0), inplace=True)
    return x


def _a_module_on_a_view(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    m.relu(x.view(3, 2, 2)[:, 0])
    return x


def _items(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    before = x.clone()
    x[:, 0] = 7.0
    x[:, 1] += 1
    x[0][2] = x[1, 2]
    x[..., -1:] = x[..., :1]
    return before, x


def _chains(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    y = x.t()[1:].add_(1).mul_(2)
    z = y[0]
    z -= 5
    x.narrow(1, 0, 2).neg_()
    x.select(1, -1).zero_()
    return x, y, z, x.split([1, 3], dim=1)[1]


def _reshaped_views(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    x.view(-1, 2, 2).permute(0, 2, 1)[:, 1].add_(3)
    x.unflatten(1, (2, 2)).flatten(1).movedim(0, 1).mul_(2)
    return x


def _written_out(m: Any, x: torch.Tensor) -> Any:
    h = m.linear(x)
    z = torch.full_like(h, 7.0)
    torch.add(h, 1.0, out=z)
    return h + z


def _out_of_a_view(m: Any, x: torch.Tensor) -> Any:
    h = m.linear(x)
    torch.mul(h[:, 1:], 2.0, out=h[:, :3])
    return h


def _a_constant_of_the_forward(m: Any, x: torch.Tensor) -> Any:
    total = torch.zeros(4)
    total += m.linear(x).sum(0)
    total.add_(1)
    return total


def _a_constant_changed_on_the_way(m: Any, x: torch.Tensor) -> Any:
    shift = torch.zeros(4)
    x = m.linear(x) + shift
    shift[0] = 5.0
    return x + shift


def _a_table_filled_in(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    table = torch.zeros(x.shape[0], 4)
    table[:, 1:3] = x[:, :2]
    return table + x


def _the_input(m: Any, x: torch.Tensor) -> Any:
    x += 1
    y = x[:, 1:]
    y *= 2
    return m.linear(x)


def _shapes_in_place(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    y = x
    x.unsqueeze_(1)
    x.transpose_(0, 2)
    return y * 2


def _kept_dtype(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x).half()
    y = x
    x += m.linear(x.float())
    return y


def _what_it_returns(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    y = x.add_(1)
    y.mul_(2)
    return x, y, x.data


FORWARDS = [
    _renamed, _every_augmented_operator, _a_part, _the_whole_seen_through_views, _activations_on_views,
    _a_module_on_a_view, _items, _chains, _reshaped_views, _written_out, _out_of_a_view, _a_constant_of_the_forward,
    _a_constant_changed_on_the_way, _a_table_filled_in, _the_input, _shapes_in_place, _kept_dtype, _what_it_returns,
]  # fmt: skip


def _model(run: Callable[..., Any]) -> nn.Module:
    torch.manual_seed(0)
    return Forward(run, linear=nn.Linear(4, 4), relu=nn.ReLU(inplace=True))


@pytest.mark.parametrize("run", FORWARDS, ids=lambda run: run.__name__.strip("_"))
def test_what_is_written_is_read(run: Callable[..., Any]) -> None:
    model, x = _model(run), torch.randn(3, 4)
    graph = gg.trace(model, x)
    for x in (torch.randn(3, 4), torch.randn(3, 4)):
        mine, theirs = x.clone(), x.clone()
        with torch.no_grad():
            found, wanted = graph.module(mine), model(theirs)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        assert torch.equal(mine, theirs)  # an input that is overwritten stays so


@pytest.mark.parametrize("run", FORWARDS, ids=lambda run: run.__name__.strip("_"))
def test_the_edges_alone_tell_it(run: Callable[..., Any]) -> None:
    """With each operator on copies of what it reads, nothing can be seen through shared memory."""
    model, x = _model(run), torch.randn(3, 4)
    module = gg.trace(model, x).module

    class OnCopies(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            return result.clone() if isinstance(result, torch.Tensor) else result

        def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> Any:
            return pytree.tree_map_only(torch.Tensor, torch.clone, super().fetch_args_kwargs_from_env(n))

    with torch.no_grad():
        torch.testing.assert_close(OnCopies(module).run(x.clone()), model(x.clone()), rtol=0, atol=0)


def test_names_of_one_tensor_need_no_operator_in_place() -> None:
    graph = gg.trace(_model(_renamed), torch.randn(3, 4))
    assert [node.target for node in graph.module.graph.nodes if node.op == "call_function"] == [
        operator.mul,
        operator.add,
    ]


class Statement(nn.Module):
    """The result of an in-place operator is dropped, and the tensor is read on."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.last = nn.LayerNorm(6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(x))
        hidden.add_(1.0)  # new units were zero before, and are not now
        F.relu(hidden, inplace=True)
        hidden += 0.5
        result: torch.Tensor = self.last(hidden)
        return result


class Aliases(nn.Module):
    """A residual stream that has two names, and a part of it that is written through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        stream = hidden
        stream += self.inner(torch.relu(hidden))
        tokens = stream.view(-1, 6)
        tokens *= 0.5
        result: torch.Tensor = self.last(hidden)
        return result


@pytest.mark.parametrize("build", [Statement, Aliases])
def test_growth_behind_operators_in_place(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(3, 5)
    graph = gg.trace(model, x)
    assert torch.equal(graph.module(x), model(x))
    for mutation in graph.mutations():
        assert gg.verify(graph, gg.apply(graph, mutation)).preserved, mutation
    assert "widen(first, extra=3)" in map(str, graph.mutations())


def _through_a_diagonal(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    x.diagonal().add_(1)
    return x


def _parts_of_the_batch(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    x.chunk(2)[0].add_(1)
    return x


def _several_at_once(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    values, places = x.new_zeros(x.shape[0]), torch.zeros(x.shape[0], dtype=torch.long)
    torch.max(x, 1, out=(values, places))
    return values


def _views_of_a_constant(m: Any, x: torch.Tensor) -> Any:
    total = torch.zeros(4)
    first = total[:2]
    total += m.linear(x).sum(0)
    return first * 2


def _an_attribute(m: Any, x: torch.Tensor) -> Any:
    x = m.linear(x)
    x.data = x * 2
    return x


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (_through_a_diagonal, r"test_inplace.py:\d+ overwrites a tensor in place.*diagonal"),
        (_parts_of_the_batch, r"test_inplace.py:\d+ overwrites a tensor in place"),
        (_several_at_once, r"`max` writes into several tensors.*test_inplace.py:\d+"),
        (_views_of_a_constant, r"test_inplace.py:\d+ overwrites a tensor in place"),
        (_an_attribute, r"`.data` of the value `linear` is set.*test_inplace.py:\d+"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_line(run: Callable[..., Any], words: str) -> None:
    with pytest.raises(gg.CaptureError, match=words):
        capture(_model(run), torch.randn(4, 4), way="fx")
