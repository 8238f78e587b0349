"""Activations by name and in the forms that models write them, against torch's own functions."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.blocks.activations import ACTIVATIONS, as_module, name_of, not_in_place

X = torch.linspace(-8, 8, 33, dtype=torch.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_name_makes_a_fresh_module_of_that_name(name: str) -> None:
    made, other = ACTIVATIONS[name](), ACTIVATIONS[name]()
    assert made is not other
    assert name_of(made) == name
    assert not getattr(made, "inplace", False)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_each_grows_no_faster_than_its_input(name: str, dtype: torch.dtype) -> None:
    """A closed share of it adds exactly nothing only where it is finite: exp, say, is not in the list."""
    largest = 1e4 if dtype is torch.float16 else 1e18
    x = torch.tensor([largest, -largest, 1e4, -1e4, 0.0], dtype=dtype)
    y = ACTIVATIONS[name]().to(dtype)(x)
    assert y.dtype == dtype
    assert bool((y.abs() <= 2 * x.abs() + 1).all())


def test_what_has_no_name() -> None:
    class Loud(nn.ReLU):
        pass

    for module in (Loud(), nn.Linear(2, 2), nn.Softmax(-1), nn.RReLU(), nn.GLU()):
        assert name_of(module) is None
        assert as_module(module, "path", (), {}) is None


# the target of a call, its arguments behind the tensor, and by whom torch computes the same
CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (F.relu, (), {}), (F.relu, (), {"inplace": True}), (F.relu, (True,), {}), (torch.relu, (), {}),
    (torch.relu_, (), {}), (F.relu_, (), {}), ("relu", (), {}), ("relu_", (), {}), (F.relu6, (), {"inplace": False}),
    (F.leaky_relu, (), {}), (F.leaky_relu, (0.3,), {}), (F.leaky_relu, (), {"negative_slope": 0.3, "inplace": True}),
    (F.gelu, (), {}), (F.gelu, (), {"approximate": "tanh"}), (F.silu, (), {}), (F.silu, (True,), {}),
    (F.elu, (), {}), (F.elu, (0.5,), {}), (F.elu, (), {"alpha": 0.5}), (F.selu, (), {}), (F.celu, (0.7,), {}),
    (F.mish, (), {}), (F.hardswish, (), {}), (F.hardtanh, (), {}), (F.hardtanh, (-0.5, 2.0), {}),
    (F.hardtanh, (), {"max_val": 2.0}), (F.hardsigmoid, (), {}), (torch.tanh, (), {}), ("tanh", (), {}),
    (torch.sigmoid, (), {}), ("sigmoid", (), {}), (F.softplus, (), {}), (F.softplus, (), {"beta": 2.0}),
    (F.softplus, (), {"beta": 2, "threshold": 5}), (F.softsign, (), {}),
]  # fmt: skip


@pytest.mark.parametrize(("target", "args", "kwargs"), CALLS)
def test_a_call_as_a_module(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    made = as_module(None, target, args, kwargs)
    assert made is not None
    x, mine = X.clone(), X.clone()
    found = made(x)
    assert torch.equal(x, X), "it leaves its input alone"
    expected = getattr(mine, target)(*args) if isinstance(target, str) else target(mine, *args, **kwargs)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (F.softplus, (2.0,), {}),  # a builtin: what stands at which position cannot be asked
        (F.elu, (torch.tensor(0.5),), {}),
        (F.leaky_relu, (), {"slope": 0.3}),
        (F.softmax, (), {"dim": -1}),
        (torch.abs, (), {}),
        (operator.add, (1.0,), {}),
        ("exp", (), {}),
        ("relu", (1.0,), {}),
    ],
)
def test_a_call_that_is_none_of_the_list(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert as_module(None, target, args, kwargs) is None


def test_a_copy_that_is_not_in_place_shares_its_weights() -> None:
    module = nn.LeakyReLU(0.3, inplace=True)
    twin = not_in_place(module)
    assert isinstance(twin, nn.LeakyReLU)
    assert (twin.inplace, twin.negative_slope, module.inplace) == (False, 0.3, True)
    slopes = nn.PReLU(init=0.7)
    other = as_module(slopes, "path", (), {})
    assert isinstance(other, nn.PReLU)
    assert other is not slopes
    assert other.weight is slopes.weight
    other.weight = nn.Parameter(torch.zeros(1))
    assert float(slopes.weight.detach()) == pytest.approx(0.7)
