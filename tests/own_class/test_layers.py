"""Copies of layers stand behind the one that they are copies of, and are counted through."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

import graphgrow as gg
from graphgrow.own_class.layers import insert_layers
from graphgrow.pretrained.names import Renaming
from tests.own_class.models import Decoder


def test_a_copy_has_its_place_its_number_and_the_sizes_of_its_time() -> None:
    model = Decoder()
    graph = gg.trace(model, torch.randint(0, 11, (2, 5)))
    grown = gg.apply(graph, ["deepen(layers.0, kind=copy)", "add-heads(layers.0.attention)"])
    shapes = {name: tuple(parameter.shape) for name, parameter in grown.module.named_parameters()}
    result = copy.deepcopy(model)
    result.layers[0].attention.heads = 3
    insert_layers(result, model, Renaming.of(grown.module, model), shapes)
    assert [layer.attention.number for layer in result.layers] == [0, 1, 2]
    assert [layer.attention.heads for layer in result.layers] == [3, 2, 2]
    assert (result.config.num_layers, model.config.num_layers) == (3, 2)
    assert result.layers[1].up.weight is not result.layers[0].up.weight
    assert torch.equal(result.layers[1].up.weight, model.layers[0].up.weight)


def test_a_configuration_counts_the_layers_of_its_own_modules_alone() -> None:
    """Two towers of two layers: the count of the one that stayed went along, and checkpoints had a layer at random."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = Decoder(), Decoder()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.left(tokens) + self.right(tokens)
            return result

    model: Any = Towers().eval()
    tokens = torch.randint(0, 11, (2, 5))
    result: Any = gg.to_model(gg.apply(gg.trace(model, tokens), "deepen(left.layers.0, kind=copy)"), model)
    assert (result.left.config.num_layers, result.right.config.num_layers) == (3, 2)
    assert torch.allclose(result(tokens), model(tokens), atol=1e-5)
