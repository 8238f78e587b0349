"""Models by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.store.names import build


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "is no model"),
        ("graphgrow:", "is no model"),
        ("graphgrow:nothing", "there are densenet"),
        ("torchvision:resnet17", "did you mean resnet"),
        ("no.such.module:factory", "cannot import"),
        ("math:nothing", "has no 'nothing'"),
        ("os:getcwd", "returns str, not an nn.Module"),
    ],
)
def test_unknown_names_are_refused_with_a_remedy(name: str, message: str) -> None:
    with pytest.raises(gg.ModelError, match=message):
        build(name)


def test_a_reference_model_comes_with_inputs() -> None:
    model, args = build("graphgrow:mlp")
    assert args is not None
    assert isinstance(model(*args), torch.Tensor)


def test_a_torchvision_model_can_be_built_and_traced_by_name() -> None:
    graph = gg.trace("torchvision:resnet18", torch.randn(2, 3, 32, 32))
    assert graph.base == "torchvision:resnet18"
    assert graph.group("layer1.0.conv2") is graph.group("conv1")  # one residual stream


def test_a_factory_is_called_and_has_no_inputs_of_its_own() -> None:
    model, args = build("torch.nn:Identity")
    assert isinstance(model, nn.Identity)
    assert args is None
    with pytest.raises(gg.CaptureError, match="wants example inputs"):
        gg.trace("torch.nn:Identity")
