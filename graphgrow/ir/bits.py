"""Tensors compared to the bit."""

from __future__ import annotations

import torch


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal to the bit, in shape, dtype and device too; without data there is nothing else."""
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    return one is other or one.is_meta or torch.equal(whole(one), whole(other))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The bits of a tensor as whole numbers, so that NaN is NaN and 0.0 not -0.0."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.detach().resolve_conj())
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    return tensor.detach() if kind is None or not tensor.is_floating_point() else tensor.detach().view(kind)
