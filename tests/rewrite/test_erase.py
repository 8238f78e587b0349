"""Taking nodes out of a graph: what goes with them, and what stays."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.ir.editor import Editor
from graphgrow.rewrite.erase import _dead, bypass, erase
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def test_checks_of_what_goes_go_too_and_those_of_what_stays_stay() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        torch._assert(y.size(0) == x.size(0), "rows")
        torch._assert(x.size(1) == 3, "columns")
        return x + m.b(y)

    graph = gg.trace(Forward(run, a=nn.Linear(3, 4), b=nn.Linear(4, 3)), torch.randn(2, 3))
    names = [node.name for node in graph.module.graph.nodes]
    total, x = graph.sites.find(":add"), graph.sites.find("x")
    editor = Editor(graph.module)
    step = bypass(graph, editor, total, x)
    left = [node.name for node in editor.finish().graph.nodes]
    assert step.moved == {total.name: "x"}
    assert set(left) < set(names)
    assert not {"a", "b", total.name} & set(left)
    kept = [node.args[1] for node in editor.module.graph.nodes if node.target is torch._assert]
    assert kept in ([], ["columns"])  # an assertion that holds for every input may have gone at the capture
    assert torch.equal(editor.module(torch.ones(2, 3)), torch.ones(2, 3))


def test_a_parameter_that_others_fetch_stays() -> None:
    graph = gg.trace(
        Forward(lambda m, x: (x * m.w + x * m.v) + m.w, w=torch.ones(3), v=torch.ones(3)), torch.ones(2, 3)
    )
    editor = Editor(graph.module)
    product = editor.node(graph.sites.find(":mul@2").name)
    total = next(iter(product.users))
    total.replace_all_uses_with(editor.node(graph.sites.find(":mul").name))
    erase(editor, [total])
    assert [name for name, _ in editor.finish().named_parameters()] == ["w"]


def test_what_writes_into_the_value_of_others_stays() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return m.b(x) + y.relu_().sigmoid() + y

    graph = gg.trace(Forward(run, a=nn.Linear(3, 4), b=nn.Linear(3, 4)), torch.randn(2, 3))
    editor = Editor(graph.module)
    y, written = (editor.node(graph.sites.find(name).name) for name in ("a", ":relu_"))
    for reader in [user for user in written.users if user.target != "sigmoid"]:
        reader.replace_input_with(written, y)  # as it might stand in a graph that tells the truth by memory alone
    total = editor.node(graph.sites.find(":add").name)
    total.replace_all_uses_with(editor.node(graph.sites.find("b").name))
    with pytest.raises(gg.Declined, match="writes into a value that others read"):
        erase(editor, [total])


@pytest.mark.parametrize("late", [False, True])
def test_what_writes_behind_all_readers_may_go(late: bool) -> None:
    """As an in-place activation whose input a candidate beside it has copied."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        before = y.tanh()
        after = y.relu_().sigmoid()
        return before + after + (y[0] if late else x)

    graph = gg.trace(Forward(run, a=nn.Linear(3, 3)), torch.randn(2, 3))
    editor = Editor(graph.module)
    sigmoid, tanh = (editor.node(graph.sites.find(name).name) for name in (":sigmoid", ":tanh"))
    y, written = (editor.node(graph.sites.find(name).name) for name in ("a", ":relu_"))
    for reader in [user for user in written.users if user.target != "sigmoid"]:
        reader.replace_input_with(written, y)  # as above
    for reader in list(sigmoid.users):
        reader.replace_input_with(sigmoid, tanh)
    if late:
        with pytest.raises(gg.Declined, match="writes into a value that others read"):
            erase(editor, [sigmoid])
        return
    erase(editor, [sigmoid])
    x = torch.randn(4, 3)
    assert not any("relu_" in str(node.target) for node in editor.module.graph.nodes)
    torch.testing.assert_close(editor.finish()(x), 2 * graph.module.get_submodule("a")(x).tanh() + x)


@pytest.mark.parametrize("others", [False, True])
def test_a_value_that_is_overwritten_is_not_put_in_the_place_of_one_that_others_read(others: bool) -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        z = m.act(y)
        z.mul_(2.0)
        return z + (y if others else x)

    model = Forward(run, a=nn.Linear(3, 3), act=nn.PReLU(init=1.0)).double()
    graph = gg.trace(model, torch.randn(2, 3).double())
    assert len(graph.mutations("drop-identity")) == (not others)
    if others:
        with pytest.raises(gg.Declined, match="writes into its memory, and `a` has other readers"):
            gg.apply(graph, "drop-identity(act)")
    else:
        assert_preserved(graph, gg.apply(graph, "drop-identity(act)"))


def test_a_deep_graph_is_no_matter() -> None:
    """Whether only checks come of a node was asked from reader to reader, as deep as maxvit is long."""
    deep = nn.Sequential(nn.Linear(2, 2), nn.Identity(), *(nn.Tanh() for _ in range(1100)))
    graph = gg.trace(deep, torch.randn(1, 2))
    assert "1" not in dict(gg.apply(graph, "drop-identity(1)").module.named_modules())


def _calls(length: int) -> int:
    """Of Python functions, while it is found out what goes with the last of so many nodes."""
    graph = fx.Graph()
    node = graph.placeholder("x")
    for _ in range(length):
        node = graph.call_function(torch.tanh, (node,))
    last = graph.call_function(torch.relu, (node,))
    graph.output(node)
    count = 0

    def counted(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        assert _dead([last]) == {last}
    finally:
        sys.setprofile(None)
    return count


def test_what_goes_is_found_in_proportion_to_the_graph() -> None:
    """Each round over all nodes brought one layer back."""
    assert _calls(800) < 3 * _calls(400)


def zeros(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def test_a_branch_that_gives_the_sum_its_shape_stays() -> None:
    graph = gg.trace(
        Forward(lambda m, x: m.a(x)[:, :1] + m.b(x), a=nn.Linear(3, 4), b=zeros(3, 4)), torch.randn(2, 5, 3)
    )
    with pytest.raises(gg.Declined, match="`getitem` is of another shape or dtype than `add`"):
        gg.apply(graph, "drop-branch(:add)")


def test_a_norm_that_is_called_elsewhere_too_keeps_its_statistics() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.norm(m.a(x)) + m.closed(m.norm(m.b(x)))

    members = {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "closed": zeros(4, 4)}
    graph = gg.trace(Forward(run, **members), torch.randn(6, 3))
    with pytest.raises(gg.Declined, match="`norm` is called elsewhere too, and would gather other statistics"):
        gg.apply(graph, "drop-branch(:add)")


def _step_by_step(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    state = torch.zeros_like(h[:, 0])
    states = []
    for step in range(h.shape[1]):
        state = torch.tanh(m.b(state) + h[:, step])
        states.append(state)
    return m.c(torch.stack(states, 1))


@pytest.mark.parametrize("mutation", ["deepen(c, kind=mlp)", "add-skip(:tanh, target=:tanh@2)", "widen(a, extra=2)"])
def test_what_is_taken_away_again_leaves_the_checks_of_sizes(mutation: str) -> None:
    """The steps of the example are all that the graph has: a longer input would be cut short."""
    graph = gg.trace(
        Forward(_step_by_step, a=nn.Linear(3, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 2)), torch.randn(2, 4, 3)
    )
    cleaned = gg.clean(gg.apply(graph, mutation))
    assert cleaned.parameter_count == graph.parameter_count
    for module in (graph.module, cleaned.module):
        with pytest.raises(ValueError, match=r"test_erase\.py"):
            module(torch.randn(2, 5, 3))
