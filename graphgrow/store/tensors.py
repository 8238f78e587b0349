"""The tensors of a graph module: taken out under one name each, and put back under all of them."""

from __future__ import annotations

import torch
from torch import nn

from graphgrow.errors import LedgerError


def unique_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once, under its first name, contiguous and on the CPU.

    Raises:
        LedgerError: if one is on the meta device.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta:
            raise LedgerError(f"`{name}` is on the meta device and holds no data to save")
        tensors[name] = tensor.detach().cpu().contiguous().clone()
    return tensors


def install(origin: str, module: nn.Module, tensors: dict[str, torch.Tensor], frozen: set[str] | None = None) -> None:
    """Put stored tensors in place, as new objects, under all the names of each.

    Args:
        origin: where they come from, for messages.
        module: whose tensors are replaced.
        tensors: under the first name of each, as `unique_tensors` gives them.
        frozen: names of parameters that are not trained; None leaves that to the module.

    Raises:
        LedgerError: if names or shapes differ.
    """
    present = dict([*module.named_parameters(), *module.named_buffers()])
    if set(present) != set(tensors):
        difference = sorted(set(present) ^ set(tensors))
        raise LedgerError(f"{origin} holds other tensors than its ledger builds: {', '.join(difference[:5])}")
    names: dict[int, list[str]] = {}
    everything = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in everything:
        names.setdefault(id(tensor), []).append(name)
    for name, old in present.items():
        stored = tensors[name]
        if stored.shape != old.shape:
            raise LedgerError(f"{origin}: `{name}` is {tuple(stored.shape)} where the ledger builds {tuple(old.shape)}")
        parameter = isinstance(old, nn.Parameter)
        learns = old.requires_grad if frozen is None else name not in frozen
        new = nn.Parameter(stored, requires_grad=learns) if parameter else stored
        for alias in names[id(old)]:
            owner, _, field = alias.rpartition(".")
            holder = module.get_submodule(owner)
            (holder._parameters if parameter else holder._buffers)[field] = new  # type: ignore[assignment]
