"""Numbers of configurations within configurations are found, changed and counted under their own names."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from graphgrow.pretrained.config import count_layers, fitting_config
from graphgrow.pretrained.names import Renaming
from graphgrow.pretrained.nested import number, numbers_in, part_for, parts_of, set_number


class Config(SimpleNamespace):
    """As those of transformers."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


class Tower(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(config.hidden_size, config.ffn_dim) for _ in range(config.num_layers))


class Two(nn.Module):
    """Towers of equal sizes, and what both are mapped to."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.text_model, self.vision_model = Tower(config.text_config), Tower(config.vision_config)
        self.shared = nn.Linear(config.projection_dim, config.projection_dim)


@pytest.fixture
def config() -> Config:
    towers = [Config(hidden_size=8, ffn_dim=12, num_layers=2, layer_types=["full", "window"]) for _ in range(2)]
    return Config(projection_dim=4, text_config=towers[0], vision_config=towers[1])


def test_names_reach_into_the_parts(config: Config) -> None:
    assert list(parts_of(config)) == ["", "text_config.", "vision_config."]
    assert (number(config, "projection_dim"), number(config, "text_config.ffn_dim"), number(config, "none")) == (
        4,
        12,
        0,
    )
    set_number(config, "text_config.ffn_dim", 20)
    assert (config.text_config.ffn_dim, config.vision_config.ffn_dim) == (20, 12)
    sizes = ("hidden_size", "ffn_dim", "num_layers")
    within = {f"{part}.{name}" for part in ("text_config", "vision_config") for name in sizes}
    assert numbers_in(config).keys() == {"projection_dim", *within}
    assert part_for(config, "text_model.layers") is config.text_config
    assert part_for(config, "model.vision_tower.layers") is config.vision_config
    assert part_for(config, "shared") is config


def test_classes_keep_their_names() -> None:
    named = Config(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})

    class Counted(Config):
        @property
        def num_labels(self) -> int:
            return len(self.id2label)

        @num_labels.setter
        def num_labels(self, count: int) -> None:
            self.id2label = {place: f"LABEL_{place}" for place in range(count)}

    outer = Config(head_config=Counted(**vars(named)))
    set_number(outer, "head_config.num_labels", 3)
    assert outer.head_config.id2label == {0: "no", 1: "yes", 2: "LABEL_2"}
    assert outer.head_config.label2id == {"no": 0, "yes": 1, "LABEL_2": 2}
    assert numbers_in(outer) == {"head_config.num_labels": 3}


def test_one_tower_grows_and_the_other_stays(config: Config) -> None:
    """They have the same sizes, and only the shapes tell which of them has other ones."""
    grown = copy.deepcopy(config)
    grown.vision_config.ffn_dim, grown.vision_config.num_layers = 20, 3
    wanted = {name: tuple(parameter.shape) for name, parameter in Two(grown).named_parameters()}
    layers = {"text_model.layers": ("0", "1"), "vision_model.layers": ("0", "0_deepen", "1")}
    counted = count_layers(config, Renaming(layers))
    assert (counted.text_config.num_layers, counted.vision_config.num_layers) == (2, 3)
    assert counted.vision_config.layer_types == ["full", "full", "window"]
    found = fitting_config(Two, counted, wanted, ())
    assert (found.text_config.ffn_dim, found.vision_config.ffn_dim) == (12, 20)


def test_epsilons_are_said_in_each_part(config: Config) -> None:
    config.text_config.layer_norm_eps = 1e-5
    found = fitting_config(Two, config, {}, (4e-6, 4e-6))
    assert found.text_config.layer_norm_eps == pytest.approx(4e-6)
    assert torch.tensor(config.text_config.layer_norm_eps) == 1e-5
