"""Graph modules whose code is written when it is first asked for."""

from __future__ import annotations

import copy
import inspect
import io
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.ir.late import LateCode


def late() -> tuple[LateCode, nn.Sequential]:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    return LateCode({"0": model[0], "1": model[1]}, fx.symbolic_trace(model).graph), model


def written(module: nn.Module) -> bool:
    return "_code" in vars(module)


def test_code_is_written_by_the_first_call() -> None:
    module, model = late()
    x = torch.randn(2, 3)
    assert not written(module)
    assert torch.equal(module(x), model(x))
    assert written(module)
    assert torch.equal(module(x), model(x))


def test_readers_find_the_code_as_in_any_graph_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    plain = fx.symbolic_trace(model)
    assert late()[0].code == plain.code
    assert str(late()[0]) == str(fx.GraphModule(model, plain.graph, "GraphModule"))
    assert inspect.signature(late()[0].forward) == inspect.signature(plain.forward)
    assert not hasattr(late()[0], "no_such_thing")


def test_an_edited_graph_is_run_as_it_is_now() -> None:
    module, model = late()
    x = torch.randn(2, 3)
    assert torch.equal(module(x), model(x))
    relu = next(node for node in module.graph.nodes if node.target == "1")
    relu.replace_all_uses_with(relu.all_input_nodes[0])
    module.graph.erase_node(relu)
    module.postpone()
    assert not written(module)
    assert torch.equal(module(x), model[0](x))


def test_one_module_writes_no_code_for_another() -> None:
    first, second = late()[0], late()[0]
    first(torch.randn(2, 3))
    assert not written(second)


def test_an_error_is_raised_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    module, _ = late()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            module(torch.randn(2, 5))
    assert capsys.readouterr().err == ""


def test_copies_pickles_and_exports_run() -> None:
    x = torch.randn(2, 3)
    for again in (copy.deepcopy, copy.copy, _pickled):
        module, model = late()
        twin: Any = again(module)
        assert torch.equal(twin(x), module(x))
        assert torch.equal(twin(x), model(x).detach())
    module, model = late()
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), model(x))


class Annotated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def test_a_captured_model_whose_annotations_are_text_is_pickled() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Annotated())
    graph = gg.trace(model, torch.randn(2, 3))
    x = torch.randn(5, 3)
    assert torch.equal(_pickled(graph.module)(x), model(x))
    assert "torch.Tensor" in {str(node.type) for node in gg.trace(Annotated(), x).module.graph.nodes}


def _pickled(module: nn.Module) -> Any:
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)
