"""Fourier transforms: along their own axes nothing grows, beside them everything does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares
from tests.preserved import assert_preserved

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"


def _along(target: Any, *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 3), draw(2, 3), 4, 5)
        return Probe(lambda m: op(target, m.x, *arguments, **options), {"x": x})

    return build


def case(target: Any, *free: int, label: str = "", arguments: tuple[Any, ...] = (), **options: Any) -> Case:
    """The axes that a transform leaves alone."""
    return Case((target,), _along(target, *arguments, **options), {f"x.{axis}": LINEAR for axis in free}, label)


FFT = torch.fft
CASES = [
    *(case(target, 0, 1, 2) for target in (FFT.fft, FFT.ifft, FFT.rfft, FFT.irfft, FFT.hfft, FFT.ihfft)),
    *(case(target, 0, 1) for target in (FFT.fft2, FFT.ifft2, FFT.rfft2, FFT.irfft2, FFT.hfft2, FFT.ihfft2)),
    *(case(target, 0, 1, dim=(2, 3)) for target in (FFT.fftn, FFT.ifftn, FFT.rfftn, FFT.irfftn, FFT.hfftn, FFT.ihfftn)),
    case(FFT.rfft, 0, 2, 3, label="other-axis", arguments=(None, 1)),
    case(FFT.irfft, 0, 1, 2, label="longer", n=9),
    case(FFT.fftn, label="all"),
    case(FFT.rfftn, 0, 1, 2, label="last", s=(4,)),
    case(FFT.fftshift, 0, 1, 2, dim=-1),
    case(FFT.ifftshift, 0, 1, dim=(2, 3)),
    case(FFT.fftshift, label="all"),
]  # fmt: skip


test_square = squares(CASES, 1)


class Spectral(nn.Module):
    """A layer of a Fourier neural operator with a real weight for real and imaginary parts."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes, self.weight = modes, nn.Parameter(torch.randn(width, width, modes, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waves = torch.fft.rfft(x)
        mixed = torch.einsum("bix,iox->box", waves[..., : self.modes], torch.view_as_complex(self.weight))
        padded = nn.functional.pad(mixed, (0, waves.shape[-1] - self.modes))
        return torch.fft.irfft(padded, n=x.shape[-1])


def test_channels_grow_through_a_spectral_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 6, 1), Spectral(6, 4), nn.GELU(), nn.Conv1d(6, 1, 1))
    graph = gg.trace(model, torch.randn(2, 2, 10))
    for text in ("widen(0, extra=2)", "split(0)", "widen(1, extra=3)", "split(1)"):
        assert_preserved(graph, gg.apply(graph, text))
