"""The numbers that no operator reads, where growth is uniform: as if the model were built so."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from graphgrow.network.network import Network
from graphgrow.own_class.expression import Factor
from graphgrow.own_class.origin import Origin
from graphgrow.pretrained.config import count_layers
from graphgrow.pretrained.fit import Fit
from graphgrow.pretrained.names import Renaming
from graphgrow.pretrained.nested import numbers_in, set_number


def restate_config(
    fresh: nn.Module, network: Network, model: nn.Module, renaming: Renaming, read: Collection[Factor]
) -> None:
    """Put the numbers of the configuration that fits a grown graph into a copy of the model, in place.

    They go into its configuration, and into the attributes that its class makes of them (`num_labels`, by which a loss
    lays out the logits). Where none fits, as layers have grown apart, those that are right wherever they are read do
    (the vocabulary, though MLPs are uneven). Nothing is done to a model that `gg.save_pretrained` does not take.

    Args:
        fresh: the copy.
        network: the grown graph.
        model: what it was captured from.
        renaming: how the graph's layers are called in the class.
        read: the numbers that an operator reads, which the graph says.
    """
    config: Any = getattr(fresh, "config", None)
    if config is None or not hasattr(model, "save_pretrained"):
        return
    fit = Fit.of(network, model, renaming, config)  # which has what the operators read, as the number of heads
    present, known = numbers_in(config), {str(origin) for origin in read}
    for name, value in numbers_in(fit.even).items():
        if present.get(name) != value and f"config.{name}" not in known:
            set_number(config, name, value)
    counted = count_layers(copy.deepcopy(model.config), renaming)
    before, after = (_built(type(model), one) for one in (counted, fit.even))
    for path, part in () if before is None or after is None else after.named_modules():
        held, old = ({} if one is None else vars(one) for one in (_part(fresh, path), _part(before, path)))
        for name, value in vars(part).items():
            changed = type(value) in (int, float) and name in held and held[name] == old.get(name) != value
            if changed and Origin(path, (name,)) not in read:
                held[name] = value


def _built(kind: Any, config: Any) -> nn.Module | None:
    """A model of a configuration without data; None where its class makes none of it: its attributes stay then."""
    try:
        with torch.device("meta"):
            model: nn.Module = kind(config)
    except Exception:  # noqa: BLE001 - whatever the class raises
        return None
    return model


def _part(model: nn.Module | None, path: str) -> nn.Module | None:
    try:
        return None if model is None else model.get_submodule(path)
    except AttributeError:
        return None
