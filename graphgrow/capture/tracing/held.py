"""The tensors that a graph fetches: those of the model, and those that its forward makes of nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from graphgrow.ir.meta import to_meta


class Held:
    """The parameters and buffers of a model, by identity, and their examples.

    Args:
        model: none where it is not known yet.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._names: dict[int, str] = {}
        self._fetched: dict[int, torch.UntypedStorage] = {}  # by storage of the model's, the one of its examples
        self._kept: list[torch.UntypedStorage] = []  # so that no identity is given twice
        for name, tensor in (*model.named_parameters(), *model.named_buffers()) if model is not None else ():
            self._names.setdefault(id(tensor), name)

    def name_of(self, tensor: Any) -> str | None:
        """The first name of a tensor of the model's; None of anything else."""
        return self._names.get(id(tensor)) if isinstance(tensor, torch.Tensor) else None

    def example_of(self, value: Any) -> Any:
        """The example of a tensor; those of tensors that share memory do so too."""
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            return to_meta(value)
        storage = value.untyped_storage()
        if storage._cdata not in self._fetched:
            empty = torch.empty(storage.nbytes(), dtype=torch.uint8, device="meta")
            self._fetched[storage._cdata] = empty.untyped_storage()
            self._kept.append(storage)
        example = torch.empty(0, dtype=value.dtype, device="meta")
        return example.set_(self._fetched[storage._cdata], value.storage_offset(), value.shape, value.stride())


class Made:
    """The tensors that a forward makes itself, each as it is when the graph is given it.

    Attributes:
        constants: copies, by the name under which the graph fetches them.
    """

    def __init__(self) -> None:
        self.constants: dict[str, torch.Tensor] = {}
        self._made: dict[tuple[int, int], str] = {}  # by identity and number of writes
        self._origins: dict[str, torch.Tensor] = {}  # what they were copied from, which lives as long as the names do

    def name_of(self, tensor: torch.Tensor) -> str:
        """The name of a tensor's present state; another one after it is written into."""
        key = (id(tensor), tensor._version)
        if key not in self._made:
            self._made[key] = name = f"_tensor_constant{len(self._made)}"
            self._origins[name] = tensor
            self.constants[name] = tensor.detach().clone()
        return self._made[key]

    def origin(self, name: str) -> torch.Tensor | None:
        """The tensor that a name was given to."""
        return self._origins.get(name)
