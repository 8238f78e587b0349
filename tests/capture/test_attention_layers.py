"""Layers of torch.nn that attend, written out into the operators that they are made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.capture.trace import capture

MASK, HIDDEN = torch.ones(5, 5).triu(1).bool(), torch.tensor([[False] * 5, [False, False, True, True, True]])


class Attentive(nn.Module):
    """nn.MultiheadAttention in any of its forms."""

    def __init__(self, form: dict[str, Any], call: dict[str, Any]) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **form)
        self.call = call

    def forward(self, x: torch.Tensor) -> Any:
        return self.attention(x, x, x, **self.call)


FORMS = [
    {"batch_first": True}, {}, {"bias": False, "batch_first": True}, {"add_bias_kv": True},
    {"add_zero_attn": True, "batch_first": True}, {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
]  # fmt: skip


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(form) or "default")
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"need_weights": False},
        {"average_attn_weights": False},
        {"attn_mask": MASK},
        {"attn_mask": MASK, "is_causal": True, "need_weights": False},
        {"attn_mask": torch.randn(5, 5), "need_weights": False},
        {"key_padding_mask": HIDDEN, "need_weights": False},
        {"key_padding_mask": HIDDEN, "attn_mask": torch.randn(5, 5)},
    ],
    ids=lambda call: " ".join(call) or "plain",
)
def test_multihead_attention_written_out_is_the_layer(form: dict[str, Any], call: dict[str, Any], single: bool) -> None:
    double = {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in call.items()}
    if single and "key_padding_mask" in double:
        double["key_padding_mask"] = HIDDEN[1]
    torch.manual_seed(0)
    model = Attentive(form, double).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)  # biases are zero at first, and would hide a mistake
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    x = x[0] if single else x if form.get("batch_first") else x.transpose(0, 1)
    found, expected = capture(model, x, way="fx").module(x), model(x)
    assert torch.allclose(found[0], expected[0], rtol=1e-12, atol=1e-14)
    assert (found[1] is None) == (expected[1] is None)
    if found[1] is not None:
        assert torch.allclose(found[1], expected[1], rtol=1e-12, atol=1e-14)


class Sequences(nn.Module):
    """torch's own transformers, with masks in every form."""

    def __init__(self, how: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0, **options)
        self.encoder, self.how = nn.TransformerEncoder(layer, 2), how
        self.both = nn.Transformer(8, 2, 1, 1, 12, batch_first=True, dropout=0.0, **options)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> Any:
        made = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return {
            "buffer": lambda: self.encoder(x, mask=self.mask),
            "flag": lambda: self.encoder(x, mask=self.mask, is_causal=True),
            "made": lambda: self.encoder(x, mask=made),
            "hidden": lambda: self.encoder(x, src_key_padding_mask=hidden),
            "both": lambda: self.both(x, x[:, 1:], src_key_padding_mask=hidden, memory_key_padding_mask=hidden),
            "both, masked": lambda: self.both(x, x, tgt_mask=self.mask, src_mask=made),
        }[self.how]()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": F.gelu}, {"bias": False}])
@pytest.mark.parametrize("how", ["buffer", "flag", "made", "hidden", "both", "both, masked"])
def test_transformers_of_torch(how: str, options: dict[str, Any], training: bool) -> None:
    model = Sequences(how, **options).double().train(training)
    x, hidden = torch.randn(2, 5, 8, dtype=torch.float64), HIDDEN
    found = capture(model, (x, hidden), way="fx")
    assert found.modes == {"train", "eval"}
    assert torch.allclose(found.module(x, hidden), model(x, hidden), rtol=1e-11, atol=1e-13)
    zeroed = how == "hidden" and not options
    assert any("zeros at hidden tokens" in note for note in found.notes) == zeroed


class CrossAttentive(nn.Module):
    def __init__(self, **form: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **form)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.attention(x, y, y, need_weights=False)[0]


@pytest.mark.parametrize(("form", "width"), [({}, 8), ({"kdim": 6, "vdim": 6}, 6)])
def test_cross_attention(form: dict[str, Any], width: int) -> None:
    model = CrossAttentive(**form).double().eval()
    x, y = torch.randn(2, 3, 8).double(), torch.randn(2, 5, width).double()
    assert torch.allclose(gg.trace(model, (x, y)).module(x, y), model(x, y), rtol=1e-12, atol=1e-14)
