"""The configuration of a model whose growth is uniform: it says the grown sizes, as if the model were built with it."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphgrow.pretrained.fit import Fit
from graphgrow.pretrained.names import Renaming
from graphgrow.rewrite.network import Network


def restate_config(fresh: nn.Module, network: Network, model: nn.Module, renaming: Renaming) -> None:
    """Put the numbers of the configuration that fits a grown graph into that of a copy of the model, in place.

    Nothing is done where none fits (layers have grown apart), or the model is none that `gg.save_pretrained` takes.

    Args:
        fresh: the copy.
        network: the grown graph.
        model: what it was captured from.
        renaming: how the graph's layers are called in the class.
    """
    config: Any = getattr(fresh, "config", None)
    if config is None or not hasattr(model, "save_pretrained"):
        return
    fit = Fit.of(network, model, renaming)
    if fit.apart != {}:
        return
    for name, value in vars(fit.config).items():
        if type(value) in (int, float) and vars(config).get(name) != value:
            setattr(config, name, value)
