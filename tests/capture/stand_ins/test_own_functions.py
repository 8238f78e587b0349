"""Autograd functions in a graph: one node a call, by whatever name it is called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.stand_ins.own_functions import own_functions_kept
from graphgrow.capture.tracing.tracer import ShapeTracer
from graphgrow.layers import OwnFunction
from tests.preserved import assert_preserved

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Scaled(torch.autograd.Function):
    """With a backward that is not the forward's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, by: float) -> torch.Tensor:
        return x * by

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], None


class Parted(torch.autograd.Function):
    """Puts out two tensors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.clamp(min=0), x.clamp(max=0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] + gradients[1]


scaled = Scaled.apply  # as torch's own pages write it


class Block(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.map, self.call = nn.Linear(6, 6), call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.call(self.map(x))


def _net(call: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), Block(call), Block(call), nn.Linear(6, 2))


CALLS = {
    "by its class": lambda x: Scaled.apply(x, 2.0),
    "by another name": lambda x: scaled(x, 2.0),
    "twice": lambda x: scaled(scaled(x, 2.0).tanh(), 3.0),
    "two outputs": lambda x: Parted.apply(x)[0] - Parted.apply(x)[1].tanh(),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_function_is_a_layer_of_the_module_that_calls_it(name: str) -> None:
    model = _net(CALLS[name])
    graph = gg.trace(model, X, way="fx")
    assert graph.modes == {"train", "eval"}
    layers = {path for path, part in graph.module.named_modules() if isinstance(part, OwnFunction)}
    assert layers
    assert all(path.startswith(("1.", "2.")) for path in layers)
    grown = gg.apply(graph, ["widen(0, extra=2)", "split(1.map)", "deepen(2, kind=copy)"])
    assert_preserved(graph, grown)
    assert gg.verify(graph, grown).preserved


def test_training_goes_by_the_functions_backward() -> None:
    model, x = _net(CALLS["by its class"]), X.clone()
    module = gg.trace(model, x).module
    module(x).sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    model(x).sum().backward()
    wanted = [parameter.grad for parameter in model.parameters()]
    assert len(found) == len(wanted)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True) if other is not None)


def test_saved_and_loaded_with_the_model_and_refused_as_source(tmp_path: Any) -> None:
    model = _net(CALLS["twice"])
    grown = gg.apply(gg.trace(model, X), "widen(0, extra=2)")
    gg.save(grown, tmp_path / "grown")
    assert torch.equal(gg.load(tmp_path / "grown", model=model).module(X), grown.module(X))
    assert torch.equal(gg.to_model(grown, model)(X), grown.module(X))
    with pytest.raises(gg.ExportError, match="calls the autograd function Scaled, code of the model's"):
        gg.export_source(grown, tmp_path / "source")


def test_what_it_is_given_besides_tensors_and_numbers_is_refused() -> None:
    class Given(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Scaled.apply(x, self)

    with (
        own_functions_kept(ShapeTracer({"x": X})),
        pytest.raises(gg.CaptureError, match="the autograd function Scaled is given a Given"),
    ):
        ShapeTracer({"x": X}).trace(Given())


def test_torch_is_as_it_was() -> None:
    x = X.clone().requires_grad_()
    before = torch.autograd.Function.__dict__["apply"]
    with own_functions_kept(ShapeTracer({})):
        Scaled.apply(x, 2.0).sum().backward()  # no proxy among them
    assert torch.autograd.Function.__dict__["apply"] == before
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(4, 3))
    with pytest.raises(KeyError), own_functions_kept(ShapeTracer({})):
        raise KeyError
    assert torch.autograd.Function.__dict__["apply"] == before
