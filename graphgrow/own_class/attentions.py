"""Layers of nn.MultiheadAttention that have grown: torch's own where their heads fill the stream, else a freer one."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphgrow.layers.multihead import MultiheadAttention


def resize_attentions(model: nn.Module) -> None:
    """Restate the sizes of a model's attention layers by their weights, in place.

    Torch's layer takes the width of a head from that of its input. Where heads were added, `MultiheadAttention` takes
    its place, under the same name and with the same tensors; nn.TransformerEncoder then leaves alone what it would
    pack for torch's.
    """
    freed: dict[int, nn.Module] = {}
    for layer in [part for part in model.modules() if type(part) is nn.MultiheadAttention]:
        width, inner = layer.out_proj.weight.shape
        keys, values = layer._parameters["k_proj_weight"], layer._parameters["v_proj_weight"]
        layer.embed_dim, layer.head_dim = width, inner // layer.num_heads
        layer.kdim, layer.vdim = (width, width) if keys is None or values is None else (keys.shape[1], values.shape[1])
        if inner != width:
            freed[id(layer)] = MultiheadAttention.over(layer)
    for part in list(model.modules()) if freed else ():
        for name, child in part._modules.items():
            if id(child) in freed:
                part._modules[name] = freed[id(child)]
    for part in model.modules():
        if isinstance(part, nn.TransformerEncoder) and any(type(one) is MultiheadAttention for one in part.modules()):
            encoder: Any = part
            encoder.use_nested_tensor = False
