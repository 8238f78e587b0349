"""Rewrites that are right on normal numbers alone, and inputs that are what their names say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.verification.extremes import FLOATING, LAYOUTS
from tests.verification.small_net import traced

GROWN = ["widen(0, extra=2)", "deepen(2, kind=conv)"]


def _behind_the_input(function: Callable[..., Any], *names: str) -> Callable[[fx.GraphModule], None]:
    """Puts a function behind the first input that also reads the inputs of these names."""

    def damage(module: fx.GraphModule) -> None:
        nodes = {str(node.target): node for node in module.graph.nodes if node.op == "placeholder"}
        first, *_ = nodes.values()
        with module.graph.inserting_after(list(nodes.values())[-1]):
            new = module.graph.call_function(function, (first, *(nodes[name] for name in names)))
        first.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        module.recompile()

    return damage


def _verdicts(graph: gg.Graph, mutations: list[str], damage: Callable[[fx.GraphModule], None]) -> tuple[Any, Any]:
    child = gg.apply(graph, mutations, share=False)
    damage(child.module)
    return gg.verify(graph, child), gg.verify(graph, child, modes=("eval", "extremes"))


def closed_exponential(x: torch.Tensor) -> torch.Tensor:
    return x + 0 * torch.exp(x)


def bounded(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-1e3, 1e3)


def over_the_largest(x: torch.Tensor) -> torch.Tensor:
    largest = x.abs().amax((1, 2, 3), keepdim=True)
    return x / largest * largest


def of_contiguous_memory(x: torch.Tensor) -> torch.Tensor:
    strides = torch.empty(x.shape).stride()
    span = x.storage_offset() + sum((size - 1) * stride for size, stride in zip(x.shape, strides, strict=True))
    return x.as_strided(x.shape, strides) if span < x.untyped_storage().nbytes() // x.element_size() else x + 1


@pytest.mark.parametrize("wrong", [closed_exponential, bounded, over_the_largest, of_contiguous_memory])
def test_what_is_right_on_normal_numbers_alone_is_flagged(wrong: Callable[[torch.Tensor], torch.Tensor]) -> None:
    normal, extreme = _verdicts(traced(), GROWN, _behind_the_input(wrong))
    assert normal.preserved is True, normal
    assert extreme.preserved is False
    assert [check.mode for check in extreme.checks if not check.passed] == ["extremes"]


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(30, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.hidden(self.embedding(ids)).relu() * mask[..., None]
        return self.head(x)


def other_where_all_are_masked(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return ids - mask.all().long()


def other_where_all_are_the_last(ids: torch.Tensor) -> torch.Tensor:
    return ids - (ids == 29).all().long()


@pytest.mark.parametrize(
    ("wrong", "names"), [(other_where_all_are_masked, ["mask"]), (other_where_all_are_the_last, [])]
)
def test_masks_and_whole_numbers_of_one_kind(wrong: Callable[..., torch.Tensor], names: list[str]) -> None:
    ids, mask = torch.arange(30).view(2, 15), torch.ones(2, 15, dtype=torch.bool).tril()
    torch.manual_seed(0)
    graph = gg.trace(Masked(), (ids, mask))
    normal, extreme = _verdicts(graph, ["widen(hidden, extra=3)"], _behind_the_input(wrong, *names))
    assert normal.preserved is True, normal
    assert extreme.preserved is False


@pytest.mark.parametrize("mutation", ["split(0, units=[1])", "split(3)", "add-branch(0, kind=conv)"])
def test_right_growth_passes(mutation: str) -> None:
    graph = traced()
    verdict = gg.verify(graph, gg.apply(graph, mutation), modes=("eval", "extremes"))
    assert verdict.preserved is True
    (check,) = (check for check in verdict.checks if check.mode == "extremes")
    assert check.count == len(FLOATING) + len(LAYOUTS)


class Logarithm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu()) + x.log().sum(-1, keepdim=True)


def test_where_the_parent_has_no_number_nothing_is_asked() -> None:
    graph = gg.trace(Logarithm(), torch.rand(2, 4) + 1)
    verdict = gg.verify(graph, gg.apply(graph, "split(first)"), modes=("eval", "extremes"), inputs=torch.rand(2, 4) + 1)
    assert all(check.passed for check in verdict.checks if check.mode == "extremes"), verdict


def test_the_kinds_are_what_they_are_called() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    made = {name: make(x) for name, make in {**FLOATING, **LAYOUTS}.items()}
    assert all(tensor.shape == x.shape and tensor.dtype == x.dtype for tensor in made.values())
    assert made["negative zeros"].signbit().all()
    assert not made["negative zeros"].any()
    assert 0 < made["denormal"].abs().max() < torch.finfo(torch.float64).tiny
    assert (made["negative"] < 0).all()
    assert [int(sample.count_nonzero()) for sample in made["one-hot"]] == [1, 1]
    assert torch.equal(made["whole numbers"], made["whole numbers"].trunc())
    assert (made["constant per channel"] == made["constant per channel"][:, :, :1, :1]).all()
    assert made["cancelling"].sum(-1).abs().max() < 1e-12
    assert torch.equal(made["strided"], x)
    assert not made["strided"].is_contiguous()
    assert torch.equal(made["channels last"], x)
    assert made["channels last"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made["expanded"][1], x[0])
    assert made["expanded"].stride(0) == 0
