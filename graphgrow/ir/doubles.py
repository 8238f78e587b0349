"""Numbers in double precision: float64 for real ones, complex128 for complex ones."""

from __future__ import annotations

import torch


def in_double(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float64, or in complex128 where it holds complex numbers."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def of_kind(dtype: torch.dtype, like: torch.dtype) -> torch.dtype:
    """The complex numbers of two of `dtype` where `like` is complex, else `dtype` itself."""
    return dtype.to_complex() if like.is_complex else dtype


def parts(tensor: torch.Tensor) -> torch.Tensor:
    """Of complex numbers their real and imaginary parts along a new last axis: the same memory, if it holds them so."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
