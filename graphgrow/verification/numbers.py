"""The tensors of a network in another dtype, converted when they are needed, so that no wide copy of it is made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.ir.doubles import of_kind
from graphgrow.ir.editor import follow_flat_weights, shallow_copy
from graphgrow.rewrite.erase import erase_dtype_checks
from graphgrow.verification.noise import steadied

KEPT = 256 * 2**20  # bytes of conversions that are kept: small models are converted once
_NARROWER: dict[torch.dtype | None, set[torch.dtype]] = {
    torch.float64: {torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32},
    torch.float32: {torch.float16, torch.bfloat16, torch.complex32},
}
_CASTS = {
    "double": torch.float64, "float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16,
    "cdouble": torch.complex128, "cfloat": torch.complex64, "chalf": torch.complex32,
}  # fmt: skip
_PERIOD = 65_521  # of the signs of `one_ulp`: a prime, so that they fall into step with no row of a tensor

Change = Callable[[torch.Tensor, torch.Tensor], None]


class Numbers:
    """Converts tensors of floating point, and keeps the conversions that were used last.

    Args:
        dtype: of the conversions, and of the parts of complex numbers; None keeps each tensor's own.
        change: `(original, conversion)`, changes a conversion in place; such conversions are not kept.
        keep: bytes of conversions to keep. The newest one is kept, whatever its size.

    Attributes:
        dtype: as it was given.
    """

    def __init__(self, dtype: torch.dtype | None, change: Change | None = None, keep: int = KEPT) -> None:
        self.dtype, self._change, self._keep = dtype, change, keep
        self._kept: OrderedDict[int, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._bytes = 0

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor without gradient, in the dtype; it may be the very same storage, so it is only read."""
        own = tensor.detach()
        dtype = self._dtype(own.dtype)
        if not (own.is_floating_point() or own.is_complex()) or (self._change is None and dtype == own.dtype):
            return own
        if self._change is not None:
            return self._changed(tensor)
        if id(tensor) in self._kept:
            self._kept.move_to_end(id(tensor))
        else:
            wanted = own.numel() * dtype.itemsize
            while self._kept and self._bytes + wanted > self._keep:  # before the next is made: it may be a large one
                _, (_, oldest) = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes
                del oldest
            self._kept[id(tensor)] = (tensor, own.to(dtype))  # with the original, so that its id stays its own
            self._bytes += wanted
        return self._kept[id(tensor)][1]

    def _dtype(self, own: torch.dtype) -> torch.dtype:
        """The dtype of a conversion."""
        return own if self.dtype is None else of_kind(self.dtype, own)

    def fresh(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same as a tensor that may be written to."""
        number = self.of(tensor)
        changed = self._change is not None and (number.is_floating_point() or number.is_complex())
        return number if changed else number.clone()

    def named(self, arguments: Any) -> Any:
        """Arguments of an operator; narrower dtypes that the model names (`x.to(torch.float32)`) become this one."""
        return pytree.tree_map(self._wider, arguments) if self.dtype in _NARROWER else arguments

    def cast(self, method: str) -> str:
        """The name of a tensor's method; of those that cast to a narrower dtype, the one that casts to this."""
        wanted = self._wider(_CASTS.get(method))
        return next((name for name, dtype in _CASTS.items() if dtype is wanted), method)

    def name_in(self, graph: fx.Graph) -> None:
        """Let the nodes of a graph name this dtype where they name narrower ones, and decide as before, in place."""
        erase_dtype_checks(graph)
        for node in graph.nodes:
            if node.op in ("call_function", "call_method", "call_module"):
                node.args, node.kwargs = fx.node.map_aggregate((node.args, dict(node.kwargs)), self._wider)
            if node.op == "call_method":
                node.target = self.cast(str(node.target))

    def _wider(self, leaf: Any) -> Any:
        narrower = isinstance(leaf, torch.dtype) and leaf in _NARROWER.get(self.dtype, ())
        return self._dtype(leaf) if narrower else leaf

    def _changed(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self._change is not None
        new = tensor.detach().to(self._dtype(tensor.dtype), copy=True)
        self._change(tensor, new)
        return new


def one_ulp(seed: int) -> Change:
    """Moves every entry by about one ulp, up or down: what re-association noise looks like."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (_PERIOD,), generator=generator, dtype=torch.int8).double() * 2 - 1

    def move(_: torch.Tensor, new: torch.Tensor) -> None:
        factors = (1 + signs * torch.finfo(new.dtype).eps).to(new.device, new.dtype)
        flat = new.as_strided((new.numel(),), (1,))  # a fresh conversion is dense, in whatever order
        whole = new.numel() // _PERIOD * _PERIOD
        flat[:whole].view(-1, _PERIOD).mul_(factors)
        flat[whole:].mul_(factors[: new.numel() - whole])

    return move


def converted(module: nn.Module, numbers: Numbers, buffers: dict[int, torch.Tensor]) -> nn.Module:
    """A module over converted parameters, with steady noise; its buffers are copies that it may write to.

    Args:
        module: any module; it is not changed.
        numbers: the conversions.
        buffers: by id of the original, the copies made so far; new ones are put in.
    """
    twin = steadied(shallow_copy(module))
    for part in twin.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = numbers.of(parameter)  # type: ignore[assignment]  # read like a parameter
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = own_copy(buffer, numbers, buffers)
        follow_flat_weights(part)
    return twin


def own_copy(buffer: torch.Tensor, numbers: Numbers, buffers: dict[int, torch.Tensor]) -> torch.Tensor:
    """The one copy of a buffer among `buffers`, converted."""
    if id(buffer) not in buffers:
        buffers[id(buffer)] = numbers.fresh(buffer)
    return buffers[id(buffer)]
