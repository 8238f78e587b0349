"""Where the units of an ancestor lie in a grown network, over all the steps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphgrow.rewrite.network import Step

Places = Mapping[str, Mapping[int, torch.Tensor]]


def compose(parts: Sequence[Places]) -> dict[str, dict[int, torch.Tensor]]:
    """Follow old positions through several steps: a unit at j goes to second[first[j]]."""
    total: dict[str, dict[int, torch.Tensor]] = {}
    for places in parts:
        for name, axes in places.items():
            mine = total.setdefault(name, {})
            for axis, kept in axes.items():
                mine[axis] = kept[mine[axis]] if axis in mine else kept
    return total


def node_places(steps: Sequence[Step]) -> dict[str, dict[int, torch.Tensor]]:
    """By node name and axis, where the first network's positions are in the last."""
    return compose([step.nodes for step in steps])


def tensor_places(steps: Sequence[Step]) -> dict[str, dict[int, torch.Tensor]]:
    """The same for parameters and buffers."""
    return compose([step.tensors for step in steps])


def project(tensor: torch.Tensor, axes: Mapping[int, torch.Tensor] | None) -> torch.Tensor:
    """The old units of a grown tensor: P x'."""
    for axis, kept in (axes or {}).items():
        tensor = tensor.index_select(axis, kept.to(tensor.device))
    return tensor
