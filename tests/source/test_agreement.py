"""A generated file that differs from its graph in any way is refused, whatever the difference."""

from __future__ import annotations

import dataclasses
import random
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import ExportError
from graphgrow.graph import Graph
from graphgrow.source.agreement import check_agreement


class Net(nn.Module):
    """Its head starts at zero, so that its output says nothing about what lies before it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.drop(self.norm(self.body(x))))
        return result


INIT = """
self.body = nn.Linear(3, 4)
self.norm = nn.BatchNorm1d(4)
self.drop = nn.Dropout(p=0.5)
self.head = nn.Linear(4, 2)
"""
BODY = "return self.head(self.drop(self.norm(self.body(x))))"
LOAD = "net.load_state_dict(torch.load(Path(__file__).with_name('weights')))"


def checked(tmp_path: Path, graph: Graph, init: str = INIT, body: str = BODY, load: str = LOAD) -> tuple[str, ...]:
    lines = [
        "from pathlib import Path", "import torch", "from torch import nn", "class Net(nn.Module):",
        "  def __init__(self):", "    super().__init__()", textwrap.indent(init, "    "),
        "  def forward(self, x):", textwrap.indent(body, "    "),
        "def load():", "  net = Net()", textwrap.indent(load, "  "), "  return net",
    ]  # fmt: skip
    torch.save(graph.module.state_dict(), tmp_path / "weights")
    (tmp_path / "written.py").write_text("\n".join(lines))
    return check_agreement(tmp_path / "written.py", graph)


@pytest.fixture
def graph() -> Graph:
    return gg.trace(Net(), torch.randn(5, 3))


def test_the_same_module_passes_and_nothing_is_changed(tmp_path: Path, graph: Graph) -> None:
    before = {name: tensor.clone() for name, tensor in graph.module.state_dict().items()}
    random = torch.get_rng_state()
    assert checked(tmp_path, graph) == ()
    assert torch.equal(torch.get_rng_state(), random)
    assert graph.module.training
    assert all(torch.equal(tensor, graph.module.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load": f"{LOAD}\nnet.body.weight.data[0, 0] *= 1 + 2**-22"}, r"body\.weight: it holds other numbers"),
        ({"load": f"{LOAD}\nnet.norm.eval()"}, "`norm` is in train mode"),
        ({"init": INIT.replace("p=0.5", "p=0.4")}, "`drop`: the attribute 'p' is 0.5, and 0.4"),
        ({"body": BODY.replace("self.drop(", "self.drop(1 + ")}, "disagrees .* in eval mode: output"),
        ({"body": BODY.replace("self.drop(", "(")}, "disagrees .* in train mode"),
        ({"body": f"self.norm(self.body(x))\n{BODY}"}, "in train mode: buffer norm.running_mean"),
        ({"body": f"y = x.shape[0] // 0\n{BODY}"}, "fails in eval mode, and the graph does not: ZeroDivisionError"),
        ({"body": f"{BODY}.double()"}, "in eval mode: output"),
        ({"body": BODY.replace("return ", "return 1, ")}, "the structure of the output"),
        ({"load": "raise KeyError('body')"}, "does not run: KeyError"),
        ({"body": "return ("}, "does not run: SyntaxError"),
    ],
)
def test_each_difference_is_refused(tmp_path: Path, graph: Graph, change: dict[str, str], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        checked(tmp_path, graph, **change)


def test_where_the_graph_itself_fails_in_train_mode_it_says_so(tmp_path: Path) -> None:
    graph = gg.trace(Net().eval(), torch.randn(1, 3))  # batch norm refuses one sample
    (note,) = checked(tmp_path, graph, load=f"{LOAD}\nnet.eval()")
    assert "not compared in train mode" in note
    assert "more than 1 value per channel" in note


def test_a_graph_that_fails_on_its_own_inputs_is_refused(tmp_path: Path, graph: Graph) -> None:
    wider = gg.trace(nn.Linear(4, 2), torch.randn(5, 4)).inputs
    with pytest.raises(ExportError, match="the graph fails on inputs like its examples: RuntimeError"):
        checked(tmp_path, dataclasses.replace(graph, inputs=wider))


class Noise(nn.Module):
    """Draws from where no seed of torch reaches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + random.random()


def test_a_graph_that_is_never_the_same_is_refused(tmp_path: Path, graph: Graph) -> None:
    graph.module.drop = Noise()
    load = f"{LOAD}\nfrom {__name__} import Noise\nnet.drop = Noise()"
    with pytest.raises(ExportError, match=r"output.* differs between two runs of the graph itself .* in eval mode"):
        checked(tmp_path, graph, load=load)
