"""What an editor remembers of its edits."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import Slot


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.inner(self.first(x)) * self.scale, start_dim=1)


def edited(editor: Editor) -> set[str]:
    return {node.name for node in editor.module.graph.nodes if editor.edited(node)}


def make() -> Editor:
    return Editor(fx.symbolic_trace(Net()))


def test_nothing_is_edited_at_first() -> None:
    assert edited(make()) == set()


def test_a_replaced_tensor_edits_what_holds_it() -> None:
    editor = make()
    editor.set_tensor(["inner.0.weight"], torch.zeros(3, 3))
    assert edited(editor) == {"inner_0"}
    editor.set_tensor(["scale"], torch.zeros(3))
    assert edited(editor) == {"inner_0", "scale"}


def test_attributes_and_arguments_edit_their_node() -> None:
    editor = make()
    editor.set(editor.node("first"), Slot(("in_features",), True), 4)
    assert edited(editor) == {"first"}
    editor.set(editor.node("flatten"), Slot(("kwargs", "start_dim"), False), 0)
    assert edited(editor) == {"first", "flatten"}


def test_new_readers_and_new_nodes_are_edited() -> None:
    editor = make()
    graph, first = editor.module.graph, editor.node("first")
    with graph.inserting_after(first):
        new = graph.call_method("relu", (first,))
    editor.node("inner_0").replace_input_with(first, new)
    assert edited(editor) == {"relu", "inner_0"}


def test_a_recurrent_layer_lists_its_own_parameters_and_not_the_parents() -> None:
    parent = fx.symbolic_trace(nn.Sequential(nn.GRU(3, 4)))
    x = torch.ones(2, 1, 3)
    before = parent(x)[0]
    editor = Editor(parent)
    editor.set_tensor(["0.bias_hh_l0"], torch.zeros(12))
    gru: Any = editor.module.get_submodule("0")
    assert gru._flat_weights[3] is gru.bias_hh_l0
    gru.weight_hh_l0 = nn.Parameter(torch.zeros(12, 4))  # nn.RNNBase then writes into its list
    assert torch.equal(parent(x)[0], before)
