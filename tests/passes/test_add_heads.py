"""add-heads: attentions of every writing are found, and new heads are closed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, grown
from tests.rewrite.small_models import Forward

X = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Packed(nn.Module):
    """Query, key and value in one projection; the scores spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.drop = nn.Linear(12, 36), nn.Linear(12, 12), nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, 12) -> the same."""
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 3, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.drop(((q @ k.transpose(-2, -1)) * 4**-0.5).softmax(-1))
        result: torch.Tensor = self.out((weights @ v).transpose(1, 2).reshape(n, length, -1))
        return result


class Grouped(nn.Module):
    """Two key and value heads, each shared by two query heads, repeated as transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 16), nn.Linear(12, 8, bias=False), nn.Linear(12, 8)
        self.out = nn.Linear(16, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, 12) -> the same."""
        n, length, _ = x.shape
        q, k, v = (f(x).view(n, length, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        k, v = (y[:, :, None].expand(n, 2, 2, length, 4).reshape(n, 4, length, 4) for y in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, -1))
        return result


class Single(nn.Module):
    """Attention without an axis of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, 12) -> the same."""
        q, k, v = self.qkv(x).chunk(3, -1)
        result: torch.Tensor = self.out(F.scaled_dot_product_attention(q, k, v))
        return result


def behind(attention: nn.Module) -> Graph:
    model = Forward(lambda m, x: m.last(m.att(x)), att=attention, last=nn.Linear(12, 2))
    return gg.trace(model.double().eval(), X)


WRITINGS: dict[str, tuple[Graph, str]] = {
    "packed": (behind(Packed()), "att"),
    "grouped": (behind(Grouped()), "att"),
    "encoder layer": (behind(nn.TransformerEncoderLayer(12, 3, 16, 0.0, batch_first=True)), "att.self_attn"),
}


@pytest.mark.parametrize("name", WRITINGS)
def test_found_grown_and_closed(name: str) -> None:
    graph, site = WRITINGS[name]
    offered = [str(mutation) for mutation in graph.mutations("add-heads")]
    assert offered[0] == f"add-heads({site})"
    for text in (*offered, f"add-heads({site}, extra=3)"):
        child = grown(graph, text)
        assert_exact(graph, child, tolerance=1e-13, batches=(2,), scales=(1.0, 1e3))
        verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
        assert verdict.preserved is True, str(verdict)
        assert gg.apply(without_data(graph), text).text() == child.text()


def test_a_group_is_a_key_a_value_and_its_queries() -> None:
    graph, _ = WRITINGS["grouped"]
    child = gg.apply(graph, "add-heads(att)")
    shapes = {name: tuple(p.shape) for name, p in child.module.named_parameters() if "weight" in name}
    assert shapes["att.q.weight"] == (24, 12)
    assert (shapes["att.k.weight"], shapes["att.v.weight"]) == ((12, 12), (12, 12))
    assert shapes["att.out.weight"] == (12, 24)


def test_a_shared_head_is_one_more_query_in_each_group() -> None:
    child = gg.apply(WRITINGS["grouped"][0], "add-heads(att, shared=true)")
    shapes = {name: tuple(p.shape) for name, p in child.module.named_parameters() if "weight" in name}
    assert shapes["att.q.weight"] == (24, 12)
    assert (shapes["att.k.weight"], shapes["att.v.weight"]) == ((8, 12), (8, 12))
    assert shapes["att.out.weight"] == (12, 24)


def test_every_attention_of_the_reference_models() -> None:
    for name, count in {"vit": 3, "gpt": 2, "mixer": 0, "mlp": 0}.items():
        graph = gg.trace(MODELS[name].factory().eval(), MODELS[name].example())
        assert len(graph.mutations("add-heads")) == count


def test_heads_may_go_again() -> None:
    graph = gg.trace(MODELS["gpt"].factory(depth=1).eval(), MODELS["gpt"].example())
    back = gg.apply(graph, ["add-heads(blocks.0.attention)", "drop-units(blocks.0.attention.qkv:heads, units=[4])"])
    assert back.text() == graph.text()


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("packed", "add-heads(att, extra=0)", gg.MutationError, "at least 1"),
        ("packed", "add-heads(at)", gg.MutationError, "did you mean 'att'"),
        ("packed", "add-heads(att, shared=true)", gg.Declined, "of its own"),
    ],
)
def test_refusals(name: str, text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        gg.apply(WRITINGS[name][0], text)


def test_without_heads_or_without_attention() -> None:
    graph = behind(Single())
    assert ["no axis of heads" in str(r) for r in graph.mutations("add-heads").refusals] == [True]
    plain = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2)), torch.randn(2, 3))
    assert len(plain.mutations("add-heads")) == 0
    with pytest.raises(gg.Declined, match="no attention in this graph"):
        gg.apply(plain, "add-heads(1)")


def test_a_class_with_two_attentions_in_one_forward() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        def attend(qkv: nn.Module) -> torch.Tensor:
            q, k, v = (y.unflatten(-1, (3, -1)).transpose(1, 2) for y in qkv(x).chunk(3, -1))
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)

        result: torch.Tensor = m.out(attend(m.a) + attend(m.b))
        return result

    graph = gg.trace(Forward(run, a=nn.Linear(12, 36), b=nn.Linear(12, 36), out=nn.Linear(12, 2)).double(), X)
    names = [str(m) for m in graph.mutations("add-heads")]
    sites = [":scaled_dot_product_attention", ":scaled_dot_product_attention@2"]
    assert names == [f"add-heads({site})" for site in sites]
    assert_exact(graph, grown(graph, names[1]), tolerance=1e-13, batches=(2,), scales=(1.0,))
