"""Putting blocks into a graph: where nodes and modules go, who reads them, and that shapes are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.blocks.block import Block
from graphgrow.blocks.connection import GatedSkip
from graphgrow.blocks.residual import ConvBlock, MlpBlock
from graphgrow.errors import StructureError
from graphgrow.graph import Graph
from graphgrow.ir.editor import Editor
from graphgrow.rewrite.insert import Insertion, fresh_path
from graphgrow.rewrite.shapes import check_shapes
from tests.preserved import assert_preserved, assert_same_bits, assert_untouched, fingerprint
from tests.rewrite.small_models import Forward


def graph_of(run: Any, *examples: torch.Tensor, **members: Any) -> Graph:
    graph = gg.trace(Forward(run, **members), examples or torch.randn(4, 3))
    assert graph.analysis.facts
    return graph


def simple() -> Graph:
    return graph_of(lambda m, x: m.last(m.first(x).relu()), first=nn.Linear(3, 4), last=nn.Linear(4, 2))


def insertion(graph: Graph, site: str, seed: int = 0) -> Insertion:
    editor = Editor(graph.module)
    return Insertion(graph, editor, site, "some-pass", torch.Generator().manual_seed(seed))


def mlp() -> Block:
    return MlpBlock(4, 6, nn.LayerNorm(4), nn.GELU())


# -- nodes and modules ---------------------------------------------------------------------------------------


def test_a_block_is_written_out_behind_its_site() -> None:
    graph = simple()
    before = fingerprint(graph.module)
    edit = insertion(graph, "first")
    result = edit.inline(edit.make(mlp), [edit.site])
    edit.carry_on(edit.site, result)
    module = edit.editor.finish()
    assert [(n.op, str(getattr(n.target, "__name__", n.target))) for n in module.graph.nodes] == [
        ("placeholder", "x"),
        ("call_module", "first"),
        ("call_module", "first_some_pass.norm"),
        ("call_module", "first_some_pass.linear1"),
        ("call_module", "first_some_pass.activation"),
        ("call_module", "first_some_pass.linear2"),
        ("call_function", "add"),
        ("call_method", "relu"),
        ("call_module", "last"),
        ("output", "output"),
    ]
    (reader,) = result.users
    assert reader.target == "relu"
    assert result.all_input_nodes[0] is edit.site
    step = edit.step()
    assert step.moved == {"first": result.name}
    assert step.created == {n.name for n in module.graph.nodes} - {n.name for n in graph.module.graph.nodes}
    assert set(step.touched) == {f"first_some_pass.{n}" for n, _ in mlp().named_parameters()}
    assert step.exact_in == {"eval", "train"}
    assert_untouched(graph.module, before)
    x = torch.randn(5, 3)
    assert torch.equal(module(x), graph.module(x))


def test_every_reader_is_redirected_and_no_new_one() -> None:
    def run(m: Any, x: Any) -> Any:
        y = m.first(x)
        return m.last(y), y.sum(), [y * 2, {"y": y}]

    graph = graph_of(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2))
    child = gg.apply(graph, ["deepen(first)", "deepen(first, kind=identity)"])
    site = child.sites.find("first")
    readers = {str(user.target) for user in site.users}
    assert readers == {"first_deepen2.linear"}
    assert {str(user.target) for user in child.sites.find("first_deepen2.activation").users} == {
        "first_deepen.norm", str(child.sites.find("first_deepen:add").target),
    }  # fmt: skip
    assert len(child.sites.find("first_deepen:add").users) == 4  # last, sum, mul and the output
    assert_preserved(graph, child)


def test_operators_of_the_block_stand_in_it_and_around_the_site() -> None:
    inner = Forward(lambda m, x: m.a(x).relu(), a=nn.Linear(3, 4))
    graph = graph_of(lambda m, x: m.last(m.inner(x)), inner=inner, last=nn.Linear(4, 2))
    stacks = {}
    for site in ("inner.a", "inner:relu", "inner"):
        child = gg.apply(graph, f"deepen({site})")
        (total,) = [node for node in child.module.graph.nodes if getattr(node.target, "__name__", "") == "add"]
        stacks[site] = [path for path, _ in total.meta["nn_module_stack"].values()]
    assert stacks == {
        "inner.a": ["inner", "inner.a_deepen"],
        "inner:relu": ["inner", "inner.relu_deepen"],
        "inner": ["inner_deepen"],  # behind the module, not in it
    }


def test_the_module_is_an_ordinary_one() -> None:
    """Its modes, its parameters and its state go by the names of the insertion."""
    graph = simple()
    graph.module.eval()
    child = gg.apply(graph, "deepen(first)")
    assert not child.module.get_submodule("first_deepen.linear1").training
    child.module.train()
    assert child.module.get_submodule("first_deepen.linear1").training
    assert not graph.module.get_submodule("first").training
    assert "first_deepen.linear2.weight" in child.module.state_dict()
    assert gg.apply(child, "deepen(last)").module.get_submodule("first_deepen.linear1").training


@pytest.mark.parametrize(
    ("site", "path"),
    [
        ("first", "first_some_pass"),
        ("first@2", "first_2_some_pass"),
        ("inner.a", "inner.a_some_pass"),
        ("inner:relu@3", "inner.relu_3_some_pass"),
        (":add", "add_some_pass"),
        ("taken", "taken_some_pass3"),
    ],
)
def test_new_modules_stand_beside_their_site(site: str, path: str) -> None:
    module = nn.Module()
    module.add_module("taken_some_pass", nn.Linear(1, 1))
    module.register_parameter("taken_some_pass2", nn.Parameter(torch.zeros(1)))
    module.add_module("inner", nn.Sequential())
    assert fresh_path(module, site, "some-pass") == path


class TwoInputs(nn.Module):
    """The first input is read before the second has come; both are needed to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(x) * scale + y + x)
        return result


@pytest.mark.parametrize("mutation", ["deepen(x)", "deepen(x, kind=identity)"])
def test_a_block_behind_an_input_comes_behind_all_inputs(mutation: str) -> None:
    graph = gg.trace(TwoInputs(), (torch.randn(4, 3), torch.randn(4, 3)))
    child = gg.apply(graph, mutation)
    ops = [node.op for node in child.module.graph.nodes]
    assert ops[: ops.count("placeholder")] == ["placeholder"] * ops.count("placeholder")
    assert {user.name for user in child.sites.find("x").users} <= child.steps[-1].created
    assert_preserved(graph, child)
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(child.module(x, y, 3.0), graph.module(x, y, 3.0))


# -- weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_drawn_in_float32_and_then_cast(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    child = gg.apply(gg.trace(model, torch.randn(4, 3).to(dtype)), "deepen(0)", seed=5)
    reference = gg.apply(gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(4, 3)),
                         "deepen(0)", seed=5)  # fmt: skip
    mine, theirs = child.module.state_dict(), reference.module.state_dict()
    assert {t.dtype for t in mine.values()} == {dtype}
    for name in mine:
        if "deepen" in name:
            assert torch.equal(mine[name], theirs[name].to(dtype)), name


def test_the_seed_decides_and_nothing_else() -> None:
    def grow(seed: int, site: str = "first", training: bool = True) -> nn.Module:
        graph = simple()
        graph.module.train(training)
        torch.rand(7)
        return gg.apply(graph, f"deepen({site})", seed=seed).module

    def new(module: nn.Module) -> torch.Tensor:
        return next(p for name, p in module.named_parameters() if name.endswith("linear1.weight"))

    torch.manual_seed(0)
    first = new(grow(3))
    assert torch.equal(first, new(grow(3, training=False)))
    assert not torch.equal(first, new(grow(4)))
    assert not torch.equal(first, new(grow(3, ":relu"))), "two mutations of one seed draw different numbers"


def test_no_random_state_is_moved() -> None:
    graph = simple()
    state = torch.get_rng_state()
    gg.apply(graph, ["deepen(first)", "deepen(first, kind=identity)"])
    assert torch.equal(torch.get_rng_state(), state)


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        graph = gg.trace(model, torch.empty(4, 3))
    child = gg.apply(graph, ["deepen(0)", "deepen(1, kind=identity)"])
    assert all(p.is_meta for p in child.module.parameters())


def test_share_and_copy() -> None:
    graph = simple()
    shared, copied = gg.apply(graph, "deepen(first)"), gg.apply(graph, "deepen(first)", share=False)
    for name, parameter in graph.module.named_parameters():
        assert shared.module.get_parameter(name) is parameter
        assert copied.module.get_parameter(name) is not parameter
    assert_same_bits(shared.module, copied.module)


# -- memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "cloned"),
    [
        (lambda m, x: m.last(m.first(x).relu_()), True),
        (lambda m, x: m.last(m.relu(m.keep(m.first(x)))), True),
        (lambda m, x: m.last(m.relu(m.first(x).view(-1, 4))), True),
        (lambda m, x: m.last(m.relu(m.first(x) + 1)), False),
        (lambda m, x: m.last(F.relu(m.first(x))), False),
    ],
)
def test_what_is_overwritten_later_is_read_from_a_clone(run: Callable[..., Any], cloned: bool) -> None:
    graph = graph_of(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2), keep=nn.Identity(), relu=nn.ReLU(inplace=True))
    edit = insertion(graph, "last")
    source = edit.editor.node("first")
    read = edit.readable(source)
    assert (read is not source) is cloned
    edit.behind(edit.site)
    projection = edit.add("call_function", torch.narrow, (read, 1, 0, 2))
    gate = edit.make(GatedSkip)
    nn.init.ones_(gate.get_parameter("gate.gate"))
    edit.carry_on(edit.site, edit.inline(gate, [projection, edit.site]))
    module = edit.editor.finish()
    x = torch.randn(4, 3)
    expected = graph.module(x) + graph.module.get_submodule("first")(x)[:, :2]
    torch.testing.assert_close(module(x), expected)  # the value before it was overwritten


# -- the check -----------------------------------------------------------------------------------------------


def tampered(change: Callable[[Editor, fx.Node], None]) -> None:
    graph = simple()
    editor = Editor(graph.module)
    node = next(n for n in editor.module.graph.nodes if n.target == "relu")
    change(editor, node)
    check_shapes(graph, editor)


def _double(editor: Editor, node: fx.Node) -> None:
    node.target = "double"


def _transposed(editor: Editor, node: fx.Node) -> None:
    node.target, node.args = "sum", (*node.args, -1)


def _wrong_argument(editor: Editor, node: fx.Node) -> None:
    node.args = (*node.args, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_double, r"`relu` has shape \(4, 4\) and torch\.float64 where it had shape \(4, 4\) and torch\.float32"),
        (_transposed, r"`relu` has shape \(4,\) and torch\.float32 where it had shape \(4, 4\)"),
        (_wrong_argument, r"`relu` \(relu\) fails in the grown network: "),
    ],
)
def test_a_value_of_another_shape_or_dtype_is_found(change: Callable[[Editor, fx.Node], None], message: str) -> None:
    tampered(lambda editor, node: None)
    with pytest.raises(StructureError, match=message):
        tampered(change)


def test_a_block_that_changes_the_shape_is_found() -> None:
    graph = graph_of(lambda m, x: m.last(m.first(x).relu()), torch.randn(2, 3, 6, 6), first=nn.Conv2d(3, 4, 1),
                     last=nn.Conv2d(4, 2, 1))  # fmt: skip

    class Even(ConvBlock):
        def __init__(self) -> None:
            super().__init__(4, 4, 3, 2, nn.Identity(), nn.ReLU())
            self.pool = nn.AvgPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.pool(super().forward(x))
            return result

    edit = insertion(graph, "first")
    edit.carry_on(edit.site, edit.inline(edit.make(Even), [edit.site]))
    with pytest.raises(StructureError, match=r"`relu` has shape \(2, 4, 3, 3\)"):
        edit.step()
