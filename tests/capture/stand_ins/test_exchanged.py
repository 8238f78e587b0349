"""`int()` of a computed size: free as the size is, where it is called by that name; numbers of Python's elsewhere.

And of what class something is: a parameter, a buffer, a tensor, a size; and whether it can be called.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from graphgrow.capture.trace import capture
from tests.rewrite.small_models import Forward

TABLE = {2: 1.0, 5: 2.0}


def windows(x: torch.Tensor, size: int) -> torch.Tensor:
    """As the code of Swin cuts an image into windows."""
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, c)


def together(parts: torch.Tensor, size: int, h: int, w: int) -> torch.Tensor:
    b = int(parts.shape[0] / (h * w / size / size))
    x = parts.view(b, h // size, w // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, -1)


def _swin(m: Any, x: torch.Tensor) -> Any:
    return m.b(together(torch.relu(windows(m.a(x), 2)), 2, *x.shape[1:3]))


def _inside(m: Any, x: torch.Tensor) -> Any:
    def rows(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(int(y.size(0)) * 16, -1)

    return m.b(rows(m.a(x))).view(int(x.shape[0]), 4, 4, 2)


def _as_a_class(m: Any, x: torch.Tensor) -> Any:
    assert isinstance(x.shape[0], int)
    return m.b(m.a(x).view(int(x.shape[0]), -1, 5))


def _mapped(m: Any, x: torch.Tensor) -> Any:
    return m.b(m.a(x).view(*map(int, x.shape[:1]), 16, 5))


def _looked_up(m: Any, x: torch.Tensor) -> Any:
    return m.b(m.a(x)) * TABLE[int(x.shape[0])]


def _model(run: Callable[[Any, torch.Tensor], Any]) -> nn.Module:
    torch.manual_seed(0)
    return Forward(run, a=nn.Linear(3, 5), b=nn.Linear(5, 2)).double()


@pytest.mark.parametrize("run", [_swin, _inside])
def test_a_size_stays_free(run: Callable[[Any, torch.Tensor], Any]) -> None:
    model = _model(run)
    code = (run.__code__, together.__code__)
    graph = capture(model, torch.randn(2, 4, 4, 3).double(), way="fx").module
    assert (run.__code__, together.__code__) == code
    assert not hasattr(builtins, "_graphgrow_int")
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 4, 3).double()
        assert torch.equal(graph(x), model(x))


@pytest.mark.parametrize("run", [_as_a_class, _mapped, _looked_up])
def test_where_a_number_of_pythons_is_wanted_it_is_checked(run: Callable[[Any, torch.Tensor], Any]) -> None:
    model = _model(run)
    graph = capture(model, torch.randn(2, 4, 4, 3).double(), way="fx").module
    x = torch.randn(2, 4, 4, 3).double()
    assert torch.equal(graph(x), model(x))
    with pytest.raises(ValueError, match="the model decides by the sizes of its inputs"):
        graph(torch.randn(5, 4, 4, 3).double())


def _parameters(m: Any, x: torch.Tensor) -> Any:
    learnt = sum(1 for p in m.parameters() if isinstance(p, nn.Parameter))
    of_class = sum(1 for p in m.parameters() if type(p) is nn.Parameter)  # one is of a class of its own
    h = m.a(x)
    if isinstance(h, nn.Parameter) or type(h) is not type(x) or type(x) is not torch.Tensor:
        learnt = 100
    return m.b(h) * learnt + of_class


def _buffers(m: Any, x: torch.Tensor) -> Any:
    tensors = (m.kept, m.a.weight.T, *m.buffers())
    learnt = [t for t in tensors if isinstance(t, nn.Parameter) or type(t) is not torch.Tensor]
    other = (type(x.shape), type(x.shape[0]), type(m)) != (torch.Size, int, Forward)
    return m.b(m.a(x)) + m.kept * (1 + len(learnt) + other)


def _called(m: Any, x: torch.Tensor) -> Any:
    """As helpers do that take a value, or what makes it."""
    h = m.a(x)
    given = [h() if callable(h) else h, m.a.weight, x.shape, torch.relu, m.b]
    return m.b(given[0]) * [callable(item) for item in given].index(True)


def _made(m: Any, x: torch.Tensor) -> Any:
    kind = type("Pair", (tuple,), {})
    return m.b(m.a(x)) * len(kind((1, 2)))


class Own(nn.Parameter):
    """A class of parameters."""


@pytest.mark.parametrize("run", [_parameters, _buffers, _called, _made])
def test_of_what_class_something_is(run: Callable[[Any, torch.Tensor], Any]) -> None:
    model = _model(run)
    model.extra = Own(torch.ones(2).double())
    model.register_buffer("kept", torch.ones(2).double())
    graph = capture(model, torch.randn(2, 4, 4, 3).double(), way="fx")
    assert graph.modes == {"train", "eval"}
    assert not hasattr(builtins, "_graphgrow_type")
    x = torch.randn(3, 4, 4, 3).double()
    assert torch.equal(graph.module(x), model(x))
