"""The configuration of a class that comes nearest to a grown graph."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphgrow.ir.called import called_module
from graphgrow.network.network import Network
from graphgrow.pretrained.config import Apart, count_layers, differences, even_config, fitting_config
from graphgrow.pretrained.names import Renaming


@dataclass(frozen=True)
class Fit:
    """What was found for a grown graph and a model that has a `config`.

    Attributes:
        config: a configuration of the model's class.
        apart: what of the grown shapes its model would not have; None where it makes no model.
        even: the same configuration where all fits, else one with the numbers that are right wherever they are read.
        epsilons: by path in the class, the eps of each norm of the graph.
    """

    config: Any
    apart: Apart | None
    even: Any
    epsilons: dict[str, float]

    @classmethod
    def of(cls, network: Network, model: nn.Module, renaming: Renaming, start: Any = None) -> Fit:
        """Of a grown graph and the model that it was captured from.

        Args:
            network: the grown graph.
            model: with a `config` that its class is built from.
            renaming: how the graph's layers are called in the class.
            start: a configuration in which numbers are known already; else that of the model.
        """
        build: Any = type(model)
        named = network.module.named_parameters(remove_duplicate=False)
        shapes = {renaming.name(name): tuple(parameter.shape) for name, parameter in named}
        epsilons = _epsilons(network, renaming)
        counted = count_layers(copy.deepcopy(model.config if start is None else start), renaming)
        config = fitting_config(build, counted, shapes, epsilons.values())
        apart = differences(build, config, shapes)
        even = even_config(build, counted, shapes, config) if apart != {} else config
        return cls(config, apart, even, epsilons)


def _epsilons(network: Network, renaming: Renaming) -> dict[str, float]:
    """By path in the base's class, the eps of each norm."""
    found = {}
    for node in network.module.graph.nodes:
        part = called_module(network.module, node)
        if isinstance(getattr(part, "eps", None), float):
            found[renaming.name(str(node.target))] = float(part.eps)  # type: ignore[union-attr, arg-type]
    return found
