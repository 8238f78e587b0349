"""One node calls another module: where that stands, whose tensors it holds, and what stays as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import StructureError
from graphgrow.graph import Graph
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Step
from graphgrow.rewrite.exchange import exchange, node_input
from tests.preserved import assert_untouched, fingerprint


class Acts(nn.Module):
    """An activation called twice, one called once, and one that is a function with an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4)
        self.twice, self.once = nn.Tanh(), nn.Sequential(nn.PReLU(), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.once(torch.nn.functional.elu(self.twice(self.b(self.twice(self.a(x)))), 0.5))


def exchanged(graph: Graph, site: str, module: nn.Module, share: bool = True) -> tuple[Any, Editor, Step]:
    node = graph.sites.find(site)
    assert graph.analysis.facts  # as `apply` does: every node has its example value
    editor = Editor(graph.module, share=share)
    step = exchange(graph, editor, node, module, site, "some-pass")
    return editor.node(node.name), editor, step


@pytest.fixture
def graph() -> Graph:
    return gg.trace(Acts(), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("site", "path"),
    [
        ("once.0", "once.0"),
        ("twice", "twice_some_pass"),
        ("twice@2", "twice_2_some_pass"),
        (":elu", "elu_some_pass"),
    ],
)
def test_where_the_new_module_stands(graph: Graph, site: str, path: str) -> None:
    """In the place of one that this node calls alone, else beside it; the node keeps its name, place and input."""
    before, names = fingerprint(graph.module), [node.name for node in graph.module.graph.nodes]
    new = nn.Hardswish()
    node, editor, step = exchanged(graph, site, new)
    assert (node.op, node.target, node.kwargs) == ("call_module", path, {})
    assert [used.name for used in node.args] == [used.name for used in graph.sites.find(site).all_input_nodes]
    module = editor.finish()
    assert [other.name for other in module.graph.nodes] == names
    assert isinstance(module.get_submodule(path), nn.Hardswish)
    assert module.get_submodule(path) is not new, "a copy of its own, so that train() and eval() are the child's"
    assert step == Step()
    assert_untouched(graph.module, before)
    twice = [str(other.target) for other in module.graph.nodes if other.target == "twice"]
    assert len(twice) == (1 if site.startswith("twice") else 2)
    again = gg.Graph(module, graph.inputs)
    assert not again.analysis.unknown


def test_it_computes_what_the_new_module_does(graph: Graph) -> None:
    model = graph.module.eval()
    _, editor, _ = exchanged(graph, "twice@2", nn.Softsign())
    x = torch.randn(5, 3)
    hidden = model.b(torch.tanh(model.a(x)))
    expected = model.get_submodule("once.0")(nn.functional.elu(nn.functional.softsign(hidden), 0.5))
    assert torch.equal(editor.finish().eval()(x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_new_weights_take_the_dtype_of_the_site(dtype: torch.dtype) -> None:
    graph = gg.trace(Acts().to(dtype), torch.randn(2, 3, dtype=dtype))
    new = nn.PReLU(init=0.125)
    _, editor, step = exchanged(graph, ":elu", new)
    slope = editor.module.get_parameter("elu_some_pass.weight")
    assert (slope.dtype, slope.requires_grad, float(slope.detach())) == (dtype, True, 0.125)
    assert step.touched == ("elu_some_pass.weight",)


def test_without_data_the_new_weights_have_none() -> None:
    graph = gg.trace(Acts(), torch.randn(2, 3))
    module = copy.deepcopy(graph.module).to("meta")
    outline = gg.Graph(module, gg.trace(module, torch.randn(2, 3, device="meta")).inputs)
    _, editor, _ = exchanged(outline, ":elu", nn.PReLU())
    assert editor.module.get_parameter("elu_some_pass.weight").is_meta


@pytest.mark.parametrize("share", [True, False])
def test_the_editors_own_tensors_stay_as_they_are(share: bool) -> None:
    """Also where they are not of the parent: they are neither cast nor copied, nor called new."""
    graph = gg.trace(Acts(), torch.randn(2, 3))
    assert graph.analysis.facts
    editor = Editor(graph.module, share=share)
    present = editor.module.get_submodule("once.0")
    slope = present._parameters["weight"]
    step = exchange(graph, editor, graph.sites.find("once.0"), nn.Sequential(present, nn.Tanh()), "once.0", "some-pass")
    assert editor.module.get_parameter("once.0.0.weight") is slope
    assert (slope is graph.module.get_parameter("once.0.weight")) is share
    assert step.touched == ()


def test_what_was_new_before_is_so_under_its_new_name() -> None:
    """`graph.new_parameters()` goes by name: a new slope that loses its blend is new all the same."""
    graph = gg.apply(gg.trace(Acts(), torch.randn(2, 3)), "swap-activation(:elu, to=prelu)")
    site = "elu_swap_activation"
    editor = Editor(graph.module)
    assert graph.analysis.facts
    blend: Any = editor.module.get_submodule(site)
    step = exchange(graph, editor, graph.sites.find(site), blend.new, site, "settle-activation")
    assert step.touched == (f"{site}.weight",)


def test_a_module_of_another_shape_is_refused(graph: Graph) -> None:
    with pytest.raises(StructureError, match=r"`elu` has shape \(2, 8\).* where it had .*\(2, 4\)"):
        exchanged(graph, ":elu", nn.Linear(4, 8))
    with pytest.raises(StructureError, match=r"`elu` \(elu_some_pass2?\) fails"):
        exchanged(graph, ":elu", nn.Linear(5, 4))


def test_the_new_module_follows_the_mode_of_the_graph(graph: Graph) -> None:
    for training in (True, False):
        graph.module.train(training)
        _, editor, _ = exchanged(graph, "twice", nn.Dropout(0.5))
        assert editor.module.get_submodule("twice_some_pass").training is training


def test_the_one_tensor_that_a_node_reads(graph: Graph) -> None:
    node = graph.sites.find(":elu")
    assert [used.name for used in node_input(node)] == ["twice_1"]
