"""A network without its numbers, on which mutations can be tried out at no cost."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, TypeVar

import torch
from torch import nn

from graphgrow.ir.editor import rebuild
from graphgrow.network.network import Network

N = TypeVar("N", bound=Network)


def without_data(network: N) -> N:
    """A copy of a network whose tensors are on the meta device; what is tied stays tied, and no data is moved."""
    module = rebuild(copy.deepcopy(network.module.graph), network.module, {}, type(network.module).__name__)
    _to_meta(module)
    inputs = dataclasses.replace(network.inputs, device=torch.device("meta"))
    base = network.base_inputs or network.inputs  # by which it is known what it has grown from
    return dataclasses.replace(network, module=module, inputs=inputs, base_inputs=base)


def _to_meta(module: nn.Module) -> None:
    """Put tensors without data in the place of all parameters and buffers; what is tied stays tied."""
    twins: dict[int, torch.Tensor] = {}
    for part in module.modules():
        stores: list[dict[str, Any]] = [part._parameters, part._buffers]
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = twins.setdefault(id(tensor), _meta_twin(tensor))


def _meta_twin(tensor: torch.Tensor) -> torch.Tensor:
    twin = tensor.detach().to("meta")
    return nn.Parameter(twin, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
