"""Forms of operators that a rule says no more of: what they read is frozen, and the reason names the form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.layers import set_item
from graphgrow.rules import Call, Value, axis_rule
from graphgrow.store.names import import_torchvision
from tests.ops.rules_kept import rules_kept

PLACES = torch.tensor([0, 2])
Run = Callable[[torch.Tensor], Any]


class Applied(nn.Module):
    """An operator, or a layer, behind a linear map from 4 to 6 units."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.run = nn.Linear(4, 6), run

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self.first(x))


def _reasons(run: Run) -> list[str]:
    """Why the parts of the 6 units cannot grow; they read (3, 6)."""
    graph = gg.trace(Applied(run), torch.randn(3, 4))
    return [str(group.frozen) for group in graph.groups if "first" in group.members]


def _filled_with_a_tensor(h: torch.Tensor) -> torch.Tensor:
    number: Any = torch.tensor(h.shape[1])
    return torch.full((3, 6), number) * h


FORMS: list[tuple[str, Run]] = [
    # written or looked up by position
    ("with a new axis beside tensors", lambda h: set_item(h, (None, PLACES), 0.0)),
    ("that have other axes between them", lambda h: set_item(h.unsqueeze(1), (PLACES, slice(None), 0), 0.0)),
    ("what is written has more axes than the place", lambda h: set_item(h, 0, h[1].view(1, 1, 6))),
    ("indexed by a list of tensors", lambda h: h[[PLACES, PLACES]]),
    ("positions of a flattened tensor", lambda h: torch.take_along_dim(h, PLACES)),
    ("a scatter with a reduction", lambda h: torch.scatter(h, 1, PLACES.expand(3, 2), h, reduce="add")),
    ("its rule fails on this form", lambda h: torch.scatter(h[0], 0, torch.tensor(1), h[0])),
    ("searched by position", lambda h: h.argmax(1)),
    ("rows whose norm is limited", lambda h: F.embedding(PLACES, h, max_norm=1.0)),
    # sizes: numbers that are read off tensors, and put into others
    ("sizes in a form that is not known", lambda h: torch.zeros(h.shape * 1) + h),
    ("filled with a tensor", _filled_with_a_tensor),
    ("its size is read to make a new tensor", lambda h: torch.eye(h.shape[1]) @ h.t()),
    ("sliced by a tensor", lambda h: h[:, : torch.tensor(h.shape[1]) // 2]),
    ("a tensor made from sizes", lambda h: torch.arange(h.shape[1]) * h),
    ("sizes that are computed as a whole", lambda h: h.view(h.shape * 1)),
    # views
    ("a view as another dtype", lambda h: h.view(torch.int32)),
    ("a view of other sizes", lambda h: h[:0].view(2, 0)),
    ("a view of other sizes", lambda h: h[:0].view(0, 5)),
    ("a view of other sizes", lambda h: h.t()[:, :0].view(0)),
    ("a view of other sizes", lambda h: h[:0].view(0, 6, 5)),
    ("repeated by a tensor, or over all axes", lambda h: torch.repeat_interleave(h, 2)),
    ("tensors of too few axes", lambda h: torch.hstack([h[0], h[1]])),
    # maps and windows
    ("a weight that is not a matrix", lambda h: F.linear(h, h[0])),
    ("an axis of size 1 that is broadcast", lambda h: torch.einsum("ab,cb->ac", h, h[:, :1])),
    ("an input without a batch axis", nn.InstanceNorm1d(3)),
    ("an input without a batch axis", lambda h: F.unfold(h[None], (2, 2))),
    ("an input without a batch axis", lambda h: F.fold(h.t(), (2, 5), (2, 3))),
    ("limits that are tensors", lambda h: h.clamp(min=h[0])),
]


@pytest.mark.parametrize(("reason", "run"), FORMS, ids=[f"{i}-{text}" for i, (text, _) in enumerate(FORMS)])
def test_a_form_that_no_rule_knows_freezes_what_it_reads_and_says_why(reason: str, run: Run) -> None:
    found = _reasons(run)
    assert any(reason in text for text in found), found


def test_a_norm_of_timm_whose_activation_has_parameters_is_frozen() -> None:
    import_torchvision()
    layers = pytest.importorskip("timm.layers")
    norm = layers.BatchNormAct2d(6, act_layer=nn.PReLU)
    found = _reasons(nn.Sequential(nn.Unflatten(1, (6, 1, 1)), norm))
    assert any("its activation has parameters of its own" in text for text in found), found


@pytest.fixture
def _rules_as_they_were() -> Iterator[None]:
    with rules_kept():
        yield


def _mixed_up(call: Call, input: Value) -> Value:
    call.same(input.axes[0], input.axes[1])
    return call.output(input.axes)


def _without_its_weight(call: Call, input: Value) -> Value:
    call.weight("weight")
    return call.output(input.axes)


def _of_two_operands(call: Call, input: Value, other: Value) -> Value:
    return call.output(input.axes)


def _of_another_shape(call: Call, input: Value) -> Value:
    return call.output(input.axes[:1])


@pytest.mark.usefixtures("_rules_as_they_were")
@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        ("axes of sizes 3 and 6 meet", _mixed_up),
        ("has no `weight`", _without_its_weight),
        ("called in a form that its rule does not know", _of_two_operands),
        ("its rule does not know this form (it puts out [(3, 6)], not [(3,)])", _of_another_shape),
    ],
)
def test_a_rule_of_a_users_own_that_is_wrong_freezes_what_it_reads(reason: str, rule: Any) -> None:
    class Leaf(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin()

    axis_rule(Leaf)(rule)
    graph = gg.trace(Applied(Leaf()), torch.randn(3, 4), leaves=(Leaf,))
    (group,) = [group for group in graph.groups if "first" in group.members]
    assert reason in str(group.frozen)
