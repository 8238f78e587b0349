"""Composite layers of torch.nn, written out as the operators that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from graphgrow.layers.multihead import MultiheadAttention, multihead_attention

Expansion = Callable[..., Any]


def expansion_of(module_class: type[nn.Module]) -> Expansion | None:
    """The expansion of a module class, or None."""
    return _EXPANSIONS.get(module_class)


_EXPANSIONS: dict[type[nn.Module], Expansion] = {
    nn.MultiheadAttention: multihead_attention,
    MultiheadAttention: multihead_attention,
}
