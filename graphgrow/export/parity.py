"""Parity: an ONNX file run by onnxruntime against torch, with a bound that comes from torch's own rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphgrow.errors import ExportError

Tensors = tuple[torch.Tensor, ...]


class MissingKernel(ExportError):
    """Onnxruntime's CPU kernels lack an operator in the dtype of the model."""


class CannotRun(ExportError):
    """Onnxruntime runs into an error at some batch size: the export has fixed what torch leaves open."""


NOISE_FACTOR = 4.0
"""How much larger than torch's own rounding error that of onnxruntime may be (kernels sum in other orders)."""


@dataclass(frozen=True)
class Reference:
    """What torch computes at one batch size.

    Attributes:
        batch_size: samples; None where the inputs have no batch axis.
        inputs: in the model's own dtype, on the CPU.
        own: outputs in the model's own dtype, as float64 (integers as they are), on the CPU.
        exact: outputs that count as right: those of float64 where the model runs in it.
        dtypes: of the outputs.
        noisy: outputs whose distance from `exact` is the noise of the model's own dtype.
    """

    batch_size: int | None
    inputs: Tensors
    own: Tensors
    exact: Tensors
    noisy: Tensors
    dtypes: tuple[torch.dtype, ...]


@dataclass(frozen=True)
class Parity:
    """The largest error (at the output nearest to its bound), its bound, and what else there is to say."""

    max_error: float
    bound: float
    derivation: str
    notes: tuple[str, ...]


def references(
    flat: nn.Module, samples: Sequence[tuple[int | None, Tensors]], own: Sequence[Tensors]
) -> tuple[list[Reference], str]:
    """The reference of each sample, and in words where the noise comes from; `flat` is left in float64, or perturbed.

    Args:
        flat: takes a flat list of tensors and returns a tuple of them; a copy that nobody needs afterwards.
        samples: batch size and inputs, in the model's own dtype.
        own: the outputs of `flat` for each sample, in the model's own dtype.
    """
    exact: Sequence[Tensors] | None = None
    noisy: Sequence[Tensors] = own
    if all(p.dtype != torch.float64 for p in _floating(flat)):
        exact = _in_float64(flat, samples)
    if exact is not None:
        words = "error of torch's own dtype against float64"
    else:
        # nothing wider to compare with, so torch's output is the reference, and rounding noise has to be provoked
        exact, noisy = own, _perturbed(flat, samples)
        words = "change of torch's output when each weight and input moves by one unit in its last place"
    built = [
        Reference(size, _cpu(inputs), _wide(mine), _wide(right), _wide(other), tuple(t.dtype for t in mine))
        for (size, inputs), mine, right, other in zip(samples, own, exact, noisy, strict=True)
    ]
    return built, words


def reduction_length(module: nn.Module) -> int:
    """The longest sum that one weight takes part in: the most elements below axis 0 of any parameter."""
    return max((p.numel() // p.shape[0] for p in module.parameters() if p.dim() > 1 and p.numel()), default=1)


def unit_roundoff(module: nn.Module, tensors: Sequence[torch.Tensor]) -> float:
    """Half the spacing at 1 of the coarsest floating-point dtype among weights and tensors; float32's if none."""
    dtypes = {p.dtype for p in _floating(module)} | {t.dtype for t in tensors if t.is_floating_point()}
    return max((torch.finfo(dtype).eps for dtype in dtypes), default=torch.finfo(torch.float32).eps) / 2


def largest(tensor: torch.Tensor) -> float:
    """The largest finite absolute value, 0.0 if there is none."""
    values = tensor.double().abs()
    finite = values[values.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def check_parity(
    path: Path,
    input_names: Sequence[str],
    output_names: Sequence[str],
    references: Sequence[Reference],
    *,
    noise: str,
    reduction: int,
    roundoff: float,
) -> Parity:
    """Run the file with onnxruntime on every reference's inputs and compare every output.

    The bound of an output is 4 x its noise + gamma x its largest value, gamma = min(K + 1, 8 + sqrt(K)) u, K being the
    reduction length and u the unit roundoff. Noise and value are taken over all batch sizes, since one number's
    rounding error may by chance be zero. Integers must be equal to one of torch's two answers.

    Args:
        path: of the ONNX file.
        input_names: of its inputs, in the order of `Reference.inputs`.
        output_names: of its outputs, in the order of `Reference.exact`.
        references: at least one.
        noise: in words, where the noise comes from.
        reduction: K.
        roundoff: u.

    Raises:
        ExportError: if onnxruntime refuses the file, or an output has another shape or exceeds its bound.
    """
    run = _session(path)
    gamma = min(reduction + 1, 8 + math.sqrt(reduction)) * roundoff
    results = [run(dict(zip(input_names, one.inputs, strict=True)), one.batch_size) for one in references]
    worst, notes = (0.0, 0.0), []
    for place, name in enumerate(output_names):
        limit, top = _limit(references, place, name, gamma)
        if top == 0:
            notes.append(f"output {name!r} is exactly zero on every input, so its parity says nothing")
        elif limit > top * math.sqrt(2 * roundoff):
            notes.append(f"output {name!r} is ill-conditioned: its bound is {limit / top:.2g} of its largest value")
        for reference, result in zip(references, results, strict=True):
            error = _error(torch.as_tensor(result[place]), reference, place, name)
            if not error <= limit:
                raise ExportError(
                    f"onnxruntime disagrees with torch: output {name!r} at batch size {reference.batch_size} is off by "
                    f"{error:.3g}, the bound is {limit:.3g} ({NOISE_FACTOR:g} x {noise}); no file was written. Compare "
                    "the operators' ONNX forms, try another opset=, and check that the model is deterministic in eval "
                    "mode"
                )
            if error * (worst[1] or 1.0) >= worst[0] * (limit or 1.0):
                worst = (error, limit)
    words = (
        f"{NOISE_FACTOR:g} x {noise} + {gamma:.3g} x largest output; the factor is min(K + 1, 8 + sqrt(K)) u with "
        f"K = {reduction}, u = {roundoff:.3g}"
    )
    return Parity(*worst, words, tuple(notes))


def _limit(references: Sequence[Reference], place: int, name: str, gamma: float) -> tuple[float, float]:
    """The bound of one output and its largest finite value, over all references."""
    noise = top = 0.0
    for reference in references:
        exact, noisy = reference.exact[place], reference.noisy[place]
        if exact.is_floating_point() and bool(exact.isnan().any() | noisy.isnan().any()):
            raise ExportError(
                f"output {name!r} of the model itself holds NaN on random inputs at batch size {reference.batch_size}, "
                "so nothing can be compared; repair the weights, or trace with example inputs of a usable range"
            )
        top = max(top, largest(exact))
        if exact.is_floating_point():
            noise = max(noise, largest(noisy - exact))
    exact = references[0].exact[place]
    return (NOISE_FACTOR * noise + gamma * top if exact.is_floating_point() else 0.0), top


def _error(result: torch.Tensor, reference: Reference, place: int, name: str) -> float:
    """Largest absolute error of one output, NaN where onnxruntime puts out NaN; equal infinities agree."""
    exact, own = reference.exact[place], reference.own[place]
    if result.shape != exact.shape or result.dtype != reference.dtypes[place]:
        raise ExportError(
            f"onnxruntime disagrees with torch: output {name!r} at batch size {reference.batch_size} is a "
            f"{result.dtype} of shape {tuple(result.shape)}, torch's a {reference.dtypes[place]} of shape "
            f"{tuple(exact.shape)}; no file was written. If the model's shapes depend on the batch size, pass as "
            "batch_sizes= only those that are needed"
        )
    wide = _wide((result,))[0].double()
    distance = (wide - exact.double()).abs()
    if not exact.is_floating_point():
        distance = torch.minimum(distance, (wide - own.double()).abs())
    agrees = (wide == exact) | (wide == own)
    return float(torch.where(agrees, 0.0, distance).max()) if exact.numel() else 0.0


def _session(path: Path) -> Callable[[dict[str, torch.Tensor], int | None], Sequence[Any]]:
    """A function that runs the file on named inputs; onnxruntime's refusals become `ExportError`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        kind = MissingKernel if "NOT_IMPLEMENTED" in str(error) else ExportError
        raise kind(
            f"onnxruntime refuses the exported model: {_short(error)}; no file was written. Its CPU kernels lack some "
            "operators in some dtypes: export the model in float32, or try another opset="
        ) from error

    def run(inputs: dict[str, torch.Tensor], batch_size: int | None) -> Sequence[Any]:
        try:
            return list(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()}))
        except Exception as error:
            raise CannotRun(
                f"onnxruntime cannot run the exported model at batch size {batch_size}: {_short(error)}; no file was "
                "written. Pass batch_sizes= without it if it is not needed"
            ) from error

    return run


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _in_float64(flat: nn.Module, samples: Sequence[tuple[int | None, Tensors]]) -> list[Tensors] | None:
    """The outputs in float64; None where the model cannot be run in it (it names dtypes in its code)."""
    dtypes = [tensor.dtype for tensor in _floating(flat)]
    try:
        flat.double()
        return [flat(*(_widened(tensor) for tensor in inputs)) for _, inputs in samples]
    except (RuntimeError, TypeError, ValueError):
        for tensor, dtype in zip(_floating(flat), dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)
        return None


def _perturbed(flat: nn.Module, samples: Sequence[tuple[int | None, Tensors]]) -> list[Tensors]:
    """The outputs with each weight and input moved up or down by one relative unit in the last place."""
    generator = torch.Generator().manual_seed(0)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
        return tensor * (1 + torch.finfo(tensor.dtype).eps * signs)

    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.copy_(moved(parameter))
        return [flat(*(moved(tensor) for tensor in inputs)) for _, inputs in samples]


def _floating(module: nn.Module) -> list[torch.Tensor]:
    return [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor.clone()


def _cpu(tensors: Tensors) -> Tensors:
    return tuple(tensor.detach().cpu().contiguous() for tensor in tensors)


def _wide(tensors: Tensors) -> Tensors:
    return tuple(_widened(tensor.detach()).cpu() for tensor in tensors)
