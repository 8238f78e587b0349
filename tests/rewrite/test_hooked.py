"""Hooks: kept on modules that stay as they are; a mutation that would change one of those is declined."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.ir.hooks import hook_of

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.act, self.tail, self.head = nn.ReLU(), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        result: torch.Tensor = self.head(self.act(self.tail(x + self.body(x))))
        return result


def register(module: nn.Module, kind: str, hook: Any) -> Any:
    return {
        "forward pre-hook": module.register_forward_pre_hook,
        "forward hook": module.register_forward_hook,
        "backward pre-hook": module.register_full_backward_pre_hook,
        "backward hook": module.register_full_backward_hook,
    }[kind](hook)


KINDS = ["forward pre-hook", "forward hook", "backward pre-hook", "backward hook"]


@pytest.mark.parametrize("path", ["act", "body", "stem"])
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_kept_and_fire(kind: str, path: str) -> None:
    model = Net()
    calls: list[str] = []
    register(model.get_submodule(path), kind, lambda *call: calls.append(path))
    assert hook_of(model.get_submodule(path)) == kind
    graph = gg.trace(model, X)
    assert f"`{path}` has a hook and stays one node" in graph.explain()
    grown = gg.apply(graph, "enlarge-kernel(head, to=3)")
    for module in (graph.module, grown.module):
        calls.clear()
        module(X.clone().requires_grad_()).sum().backward()
        assert calls == [path]
    assert torch.equal(graph.module(X), model(X))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "mutation"),
    [
        ("act", "widen(tail, extra=1)"),
        ("act", "swap-activation(act, to=gelu)"),
        ("stem", "widen(stem, extra=1)"),
        ("stem", "enlarge-kernel(stem, to=5)"),
        ("body", "widen(stem, extra=1)"),
    ],
)
def test_what_would_change_a_hooked_module_declines(kind: str, path: str, mutation: str) -> None:
    model = Net()
    gg.apply(gg.trace(model, X), mutation)  # without the hook it applies
    register(model.get_submodule(path), kind, lambda *call: None)
    with pytest.raises(gg.Declined, match=f"hook.*{path}|{path}.*hook"):
        gg.apply(gg.trace(model, X), mutation)


def test_a_child_that_shares_nothing_keeps_hooks_too() -> None:
    model = Net()
    model.stem.register_forward_hook(lambda *call: None)
    grown = gg.apply(gg.trace(model, X), "enlarge-kernel(head, to=3)", share=False)
    assert hook_of(grown.module.get_submodule("stem"))


def test_a_hook_that_changes_what_it_sees_is_part_of_the_function() -> None:
    model = Net()
    model.body.register_forward_hook(lambda m, args, output: output * 2 + args[0])
    model.act.register_forward_pre_hook(lambda m, args: (args[0] - 1,))
    graph = gg.trace(model, X)
    assert torch.equal(graph.module(X), model(X))
    grown = gg.apply(graph, "deepen(head, kind=conv)")
    assert gg.verify(graph, grown).preserved


def test_registers_are_the_graphs_own() -> None:
    model = Net()
    handle = model.act.register_forward_hook(lambda *call: None)
    graph = gg.trace(model, X)
    graph.module.get_submodule("stem").register_forward_hook(lambda *call: None)
    handle.remove()
    assert not hook_of(model.stem)
    assert hook_of(graph.module.get_submodule("act"))


def test_copies_have_no_hooks() -> None:
    model = Net()
    seen: list[int] = []
    model.body[0].register_forward_hook(lambda *call: seen.append(1))
    graph = gg.trace(model, X)
    for mutation in graph.mutations("deepen"):
        grown = gg.apply(graph, mutation)
        seen.clear()
        grown.module(X)
        assert seen == [1], mutation


def test_a_hook_on_the_whole_model_is_refused_and_those_of_its_state_are_noted() -> None:
    model = Net()
    handle = model.register_forward_hook(lambda *call: None)
    with pytest.raises(gg.CaptureError, match="the model itself has a forward hook"):
        gg.trace(model, X)
    handle.remove()
    model.body.register_state_dict_post_hook(lambda *call: None)
    assert "`body` has state_dict hooks, which the graph does not have" in gg.trace(model, X).explain()
