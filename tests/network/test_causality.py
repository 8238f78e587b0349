"""A new attention never tells a token of later ones, unless the model does: trained blocks, looked at from outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg

LENGTH = 6


class Tokens(nn.Module):
    """A residual mixer of tokens, from a function of itself and the stream."""

    def __init__(self, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv, self.mix = nn.Conv1d(8, 8, 3), nn.Linear(LENGTH, LENGTH)
        self.bias = nn.Parameter(torch.randn(LENGTH, LENGTH))
        mask = torch.ones(LENGTH, LENGTH).tril().bool()
        self.register_buffer("mask", mask)
        self.register_buffer("added", torch.zeros(LENGTH, LENGTH).masked_fill(~mask, -math.inf))
        self._run = run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        result: torch.Tensor = self.head(x + self._run(self, x))
        return result


def _spelled(m: Any, x: Any, hide: Callable[[Any], Any]) -> Any:
    scores = m.q(x) @ m.k(x).transpose(-2, -1) / math.sqrt(8)
    return m.out(F.dropout(torch.softmax(hide(scores), dim=-1), 0.0) @ m.v(x))


def _sdpa(m: Any, x: Any, **options: Any) -> Any:
    return m.out(F.scaled_dot_product_attention(m.q(x), m.k(x), m.v(x), **options))


def _computed(x: Any) -> Any:
    return torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()


CAUSAL: dict[str, Callable[[Any, Any], Any]] = {
    "a flag": lambda m, x: _sdpa(m, x, is_causal=True),
    "a buffer": lambda m, x: _sdpa(m, x, attn_mask=m.mask),
    "a slice of a buffer": lambda m, x: _sdpa(m, x, attn_mask=m.added[: x.shape[1], : x.shape[1]]),
    "torch.tril": lambda m, x: _sdpa(m, x, attn_mask=torch.tril(torch.ones(LENGTH, LENGTH)).bool()),
    "masked_fill with a buffer": lambda m, x: _spelled(m, x, lambda s: s.masked_fill(~m.mask, -math.inf)),
    "masked_fill with triu": lambda m, x: _spelled(m, x, lambda s: s.masked_fill(_computed(x), -math.inf)),
    "an added buffer": lambda m, x: _spelled(m, x, lambda s: s + m.added),
    "torch.where": lambda m, x: _spelled(m, x, lambda s: torch.where(m.mask, s, torch.tensor(-1e9))),
    "arange": lambda m, x: _spelled(m, x, lambda s: s + torch.where(
        torch.arange(x.shape[1])[:, None] >= torch.arange(x.shape[1]), 0.0, -1e9)),
    "in place": lambda m, x: _spelled(m, x, lambda s: s.masked_fill_(_computed(x), -math.inf)),
    "nn.MultiheadAttention": lambda m, x: m.mha(x, x, x, attn_mask=~m.mask, need_weights=False)[0],
    "with weights": lambda m, x: m.mha(x, x, x, attn_mask=m.added)[0],
    "a causal convolution": lambda m, x: m.conv(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2),
    "no mixing at all": lambda m, x: torch.relu(m.q(x)),
    "one causal, one not": lambda m, x: _sdpa(m, _sdpa(m, x, is_causal=True)),
}  # fmt: skip
FREE: dict[str, Callable[[Any, Any], Any]] = {
    "torch's function": _sdpa,
    "spelled out": lambda m, x: _spelled(m, x, lambda s: s),
    "nn.MultiheadAttention": lambda m, x: m.mha(x, x, x, need_weights=False)[0],
    "with weights": lambda m, x: m.mha(x, x, x)[0],
    "a linear map along the tokens": lambda m, x: m.mix(x.transpose(1, 2)).transpose(1, 2),
}


def trained(run: Callable[[Any, Any], Any], site: str = "stem") -> tuple[nn.Module, nn.Module]:
    """The parent's and the child's module; the new block is as open as if it had been trained."""
    graph = gg.trace(Tokens(run).double(), torch.randn(2, LENGTH, 3, dtype=torch.float64))
    grown = gg.apply(graph, f"deepen({site}, kind=attention)")
    assert gg.verify(graph, grown).preserved
    with torch.no_grad():
        for number, parameter in enumerate(grown.new_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return graph.module, grown.module


def looks_ahead(module: nn.Module) -> bool:
    """Whether what stands at a position changes with later tokens."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, LENGTH, 3, dtype=torch.float64, generator=generator)
    before = module(x)
    for position in range(LENGTH - 1):
        other = x.clone()
        other[:, position + 1 :] = torch.randn(2, LENGTH - position - 1, 3, dtype=torch.float64, generator=generator)
        if not torch.allclose(module(other)[:, : position + 1], before[:, : position + 1], rtol=1e-9, atol=1e-12):
            return True
    return False


@pytest.mark.parametrize("name", [name for name in CAUSAL if name != "one causal, one not"])
def test_no_token_is_told_of_later_ones(name: str) -> None:
    parent, child = trained(CAUSAL[name])
    assert not looks_ahead(parent)
    assert not looks_ahead(child)


def test_where_some_attentions_are_causal_a_new_one_is() -> None:
    _, child = trained(CAUSAL["one causal, one not"])
    assert child.get_submodule("stem_deepen.attention").is_causal is True  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("name", sorted(FREE))
def test_tokens_that_see_all_others_still_do(name: str) -> None:
    parent, child = trained(FREE[name])
    assert looks_ahead(parent)
    assert child.get_submodule("stem_deepen.attention").is_causal is False  # type: ignore[comparison-overlap]
    assert looks_ahead(child)


def test_a_bias_that_is_learned_may_hide_nothing_but_that_is_not_known() -> None:
    _, child = trained(lambda m, x: _spelled(m, x, lambda s: s + m.bias))
    assert child.get_submodule("stem_deepen.attention").is_causal is True  # type: ignore[comparison-overlap]


class Padded(nn.Module):
    """Tokens that are hidden from call to call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.stem, self.head, self.mha = how, nn.Linear(3, 8), nn.Linear(8, 2), nn.MultiheadAttention(8, 2)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if self.how == "sdpa":
            y = F.scaled_dot_product_attention(x, x, x, attn_mask=~hidden[:, None])
        elif self.how == "filled":
            y = (x @ x.transpose(1, 2)).masked_fill(hidden[:, None], -math.inf).softmax(-1) @ x
        else:
            y = (x @ x.transpose(1, 2) + hidden[:, None] * -1e9).softmax(-1) @ x
        result: torch.Tensor = self.head(x + y)
        return result


@pytest.mark.parametrize("how", ["sdpa", "filled", "added"])
def test_masks_that_are_inputs_decline(how: str) -> None:
    hidden = torch.zeros(2, LENGTH, dtype=torch.bool)
    graph = gg.trace(Padded(how), (torch.randn(2, LENGTH, 3), hidden))
    with pytest.raises(gg.Declined, match="mask that depends on the model's inputs"):
        gg.apply(graph, "deepen(stem, kind=attention)")
