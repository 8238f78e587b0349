"""Discrete Fourier transforms along some axes, which leave all others alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule

_MIXED = "positions that a Fourier transform mixes"


@rule(torch.fft.fft, torch.fft.ifft, torch.fft.rfft, torch.fft.irfft, torch.fft.hfft, torch.fft.ihfft)
def along_one(call: Call, input: Value, n: Any = None, dim: int = -1, norm: str | None = None) -> Value:
    """Along one axis."""
    return _transformed(call, input, [dim])


@rule(torch.fft.fft2, torch.fft.ifft2, torch.fft.rfft2, torch.fft.irfft2, torch.fft.hfft2, torch.fft.ihfft2)
def along_two(call: Call, input: Value, s: Any = None, dim: Sequence[int] = (-2, -1), norm: str | None = None) -> Value:
    """Along two axes, the last ones if none are named."""
    return _transformed(call, input, dim)


@rule(torch.fft.fftn, torch.fft.ifftn, torch.fft.rfftn, torch.fft.irfftn, torch.fft.hfftn, torch.fft.ihfftn)
def along_many(
    call: Call, input: Value, s: Any = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Value:
    """Along those axes that are named, else along as many of the last as there are sizes, else along all."""
    if dim is None:
        dim = range(-(len(input.axes) if s is None else len(s)), 0)
    return _transformed(call, input, dim)


@rule(torch.fft.fftshift, torch.fft.ifftshift)
def shifted(call: Call, input: Value, dim: int | Sequence[int] | None = None) -> Value:
    """Frequencies in another order."""
    return _transformed(call, input, range(len(input.axes)) if dim is None else [dim] if isinstance(dim, int) else dim)


def _transformed(call: Call, input: Value, dims: Sequence[int]) -> Value:
    along = {call.axis(input, dim) for dim in dims}
    call.freeze((input.axes[i] for i in along), _MIXED)
    sizes = meta_shape(call.meta)
    axes = [call.fixed(sizes[i], _MIXED) if i in along else term for i, term in enumerate(input.axes)]
    return call.output(axes, fl.Same(call.operand(input, drop=along)))
