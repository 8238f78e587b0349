"""Heads of nn.MultiheadAttention go back into the model, as a layer that takes their width from its weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers.multihead import MultiheadAttention
from graphgrow.own_class.attentions import resize_attentions

TOKENS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
HIDDEN = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]).bool()


class Classifier(nn.Module):
    """As people write them, with a method of its own."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """(n, l, 8) and what is padding, (n, l) -> (n, 3), by the first token."""
        result: torch.Tensor = self.head(self.encoder(x, src_key_padding_mask=hidden)[:, 0])
        return result

    def classes(self, x: torch.Tensor) -> torch.Tensor:
        """The likeliest."""
        return self(x).argmax(-1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mode", [True, False])
def test_heads_are_added_to_a_transformer_of_torch(masked: bool, mode: bool) -> None:
    model: Any = Classifier().double().train(mode)
    inputs = (TOKENS.double(), HIDDEN) if masked else (TOKENS.double(),)
    graph = gg.trace(model, inputs)
    grown = gg.apply(graph, ["add-heads(encoder.layers.0.self_attn)", "widen(encoder.layers.1.linear1, extra=4)"])
    larger: Any = gg.to_model(grown, model)
    first, second = (layer.self_attn for layer in larger.encoder.layers)
    assert (type(first), first.num_heads, first.head_dim, first.embed_dim) == (MultiheadAttention, 3, 4, 8)
    assert (type(second), second.num_heads) == (nn.MultiheadAttention, 2)
    assert type(model.encoder.layers[0].self_attn) is nn.MultiheadAttention  # it is not changed
    with torch.no_grad():  # where torch would take its own way for the layers that are left to it
        assert torch.allclose(larger(*inputs), model(*inputs), rtol=0, atol=1e-12)
        assert torch.equal(larger.classes(inputs[0]), model.classes(inputs[0]))
    assert torch.allclose(larger(*inputs), grown.module(*inputs), rtol=0, atol=1e-12)
    assert first.in_proj_weight is grown.module.get_parameter("encoder.layers.0.self_attn.in_proj_weight")
    restored: Any = copy.deepcopy(larger)
    restored.load_state_dict(larger.state_dict())
    assert torch.equal(restored(*inputs), larger(*inputs))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kdim": 6, "vdim": 7},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"bias": False},
        {"batch_first": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("weights", [False, True])
def test_the_layer_computes_what_that_of_torch_does(options: dict[str, Any], weights: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, **options).double()
    freed = MultiheadAttention.over(layer)
    widths = (8, layer.kdim, layer.vdim)
    q, k, v = (torch.randn(3, 3, width, dtype=torch.float64) for width in widths)
    ours, theirs = (one(q, k, v, need_weights=weights) for one in (freed, layer))
    assert torch.allclose(ours[0], theirs[0], rtol=0, atol=1e-12)
    assert (ours[1] is None) is (theirs[1] is None) is not weights
    assert theirs[1] is None or torch.allclose(ours[1], theirs[1], rtol=0, atol=1e-12)


def test_what_torch_can_compute_stays_its_own() -> None:
    """Stream and heads that grow alike: the layer's sizes are restated."""
    layer: Any = nn.MultiheadAttention(8, 2)
    wider = nn.MultiheadAttention(12, 3)
    layer._parameters.update(wider._parameters)
    layer.out_proj = wider.out_proj
    layer.num_heads = 3
    model = nn.ModuleList([layer, layer])
    resize_attentions(model)
    assert type(model[0]) is nn.MultiheadAttention
    assert (layer.embed_dim, layer.head_dim, layer.kdim, layer.vdim) == (12, 4, 12, 12)
    x = torch.randn(5, 2, 12)
    assert torch.equal(layer(x, x, x)[0], wider(x, x, x)[0])


def test_a_layer_that_stands_twice_is_one_layer() -> None:
    layer: Any = nn.MultiheadAttention(8, 2)
    layer.in_proj_weight, layer.in_proj_bias = (nn.Parameter(torch.randn(36, *s)) for s in ((8,), ()))
    layer.out_proj.weight, layer.num_heads = nn.Parameter(torch.randn(8, 12)), 3
    model: Any = nn.ModuleDict({"a": layer, "b": nn.ModuleList([layer])})
    resize_attentions(model)
    assert model["a"] is model["b"][0]
    assert (type(model["a"]), model["a"].head_dim) == (MultiheadAttention, 4)
