"""Numbers of a configuration are found by the shapes that they make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from graphgrow.pretrained.config import even_config, fitting_config


class Packed(nn.Module):
    """Queries, keys and values in one map; the width of a head is worked out where none is given."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        inner = config.num_attention_heads * width
        self.qkv = nn.Linear(config.hidden_size, inner + 2 * config.num_key_value_heads * width)
        self.out = nn.Linear(inner, config.hidden_size)
        self.mlp = nn.Linear(config.hidden_size, config.ffn_hidden_size)


class Fixed(SimpleNamespace):
    """A configuration that works the width of a head out by itself, and lets nobody say it."""

    @property
    def head_dim(self) -> int:
        return int(self.hidden_size // self.num_attention_heads)


SIZES = {"hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "ffn_hidden_size": 12}


def fitted(config: Any, **sizes: int) -> dict[str, Any]:
    wanted = {n: tuple(p.shape) for n, p in Packed(SimpleNamespace(**{**SIZES, **sizes})).named_parameters()}
    return vars(fitting_config(Packed, config, wanted, ()))


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 2},
        {"hidden_size": 12, "head_dim": 2},
        {"hidden_size": 10, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 2, "ffn_hidden_size": 20},
    ],
    ids=str,
)
def test_sizes_of_packed_maps_and_a_width_of_heads_are_found(sizes: dict[str, int]) -> None:
    assert fitted(SimpleNamespace(**SIZES), **sizes) == {**SIZES, **sizes}


def test_a_width_of_heads_is_not_said_without_need() -> None:
    assert fitted(SimpleNamespace(**SIZES), ffn_hidden_size=20) == {**SIZES, "ffn_hidden_size": 20}


def test_a_configuration_that_does_not_let_a_number_be_said_keeps_it() -> None:
    """Falcon's raised AttributeError."""
    found = fitted(Fixed(**SIZES), num_attention_heads=6, num_key_value_heads=3, head_dim=2, ffn_hidden_size=20)
    assert found["ffn_hidden_size"] == 20
    assert "head_dim" not in found


def test_heads_of_each_stage_are_no_number() -> None:
    """As in Swin, of which nothing but the MLPs had grown."""

    class Stages(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(config.hidden_size, heads) for heads in config.num_heads)

    config = SimpleNamespace(hidden_size=8, num_heads=[2, 4])
    wanted = {"maps.0.weight": (2, 9), "maps.1.weight": (4, 8)}
    assert vars(fitting_config(Stages, config, wanted, ())) == {"hidden_size": 8, "num_heads": [2, 4]}


def test_numbers_that_are_right_wherever_they_are_read_are_told_from_the_others() -> None:
    """Two of three MLPs are wider: the nearest number is theirs, and not that of all. The heads are even."""

    class Three(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Packed(config) for _ in range(3))

    base = SimpleNamespace(**SIZES)
    wanted: dict[str, tuple[int, ...]] = {}
    for number, hidden in enumerate((20, 12, 20)):
        grown = Packed(SimpleNamespace(**SIZES | {"num_attention_heads": 6, "head_dim": 2, "ffn_hidden_size": hidden}))
        wanted |= {f"layers.{number}.{name}": tuple(p.shape) for name, p in grown.named_parameters()}
    nearest = SimpleNamespace(**SIZES | {"ffn_hidden_size": 20})
    assert vars(even_config(Three, base, wanted, nearest)) == SIZES
    nearest.num_key_value_heads = 2
    base.head_dim = nearest.head_dim = 2
    nearest.num_attention_heads = 6
    even = even_config(Three, base, wanted, nearest)
    assert (even.num_attention_heads, even.ffn_hidden_size) == (6, 12)
