"""Running a model while it is captured: in one mode, on copies of its inputs, with its random numbers settled."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from graphgrow.capture.model.frames import is_users
from graphgrow.capture.model.untouched import parameters_kept
from graphgrow.errors import CaptureError
from graphgrow.ir.meta import to_meta


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """nn.TransformerEncoder and its like as their layers say, not by torch's fused path, which zeroes hidden tokens."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The whole model in one mode, and each of its modules back in its own afterwards."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before:
            module.training = mode


def run(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    training: bool = False,
    seed: int = 0,
    fused: bool = False,
) -> tuple[Any, bool]:
    """One call on copies of the inputs, from a seed; parameters that it writes into are put back.

    With `fused`, nn.TransformerEncoder and its like may take torch's fused path, else they run layer by layer.

    Returns:
        What the model returned, and whether it drew random numbers on the CPU.
    """
    args, kwargs = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, (args, kwargs))
    devices = {tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}
    with in_mode(model, training), torch.no_grad(), torch.random.fork_rng(devices=[d.index for d in devices]):
        for device in devices:
            torch.cuda.default_generators[device.index].manual_seed(seed)
        settled = torch.default_generator.manual_seed(seed).get_state()
        with parameters_kept(model), nullcontext() if fused else layer_by_layer():
            answer = model(*args, **kwargs)
        return answer, not torch.equal(settled, torch.default_generator.get_state())


def run_in_eval(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One call in eval mode, with random numbers that are the same each time."""
    return run(model, args, kwargs)[0]


def run_in_train(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `run_in_eval` in train mode; the buffers are put back afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        return run(model, args, kwargs, training=True)[0]
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)


@dataclass(frozen=True)
class InputView:
    """What a leaf returned where that lies in the memory of one of its inputs.

    Attributes:
        position: of the input among the leaf's, nested ones counted through.
        size: of what it returned.
        stride: likewise.
        offset: its distance from the input in memory.
    """

    position: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def of(self, inputs: Sequence[Any]) -> torch.Tensor:
        """The same view of another input."""
        base = inputs[self.position]
        assert isinstance(base, torch.Tensor)
        return base.as_strided(self.size, self.stride, base.storage_offset() + self.offset)


@contextmanager
def leaves_recorded(model: nn.Module, leaves: Sequence[type[nn.Module] | str]) -> Iterator[dict[str, list[Any]]]:
    """By path, what the user's leaves return while the model runs, one item a call, on the meta device.

    Raises:
        CaptureError: if one of them overwrites what it is given.
    """
    outputs: dict[str, list[Any]] = {}
    versions: dict[str, list[int]] = {}
    classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))

    def before(path: str, args: Any, kwargs: Any) -> None:
        versions[path] = [tensor._version for tensor in _tensors((args, kwargs))]

    def after(path: str, args: Any, kwargs: Any, output: Any) -> None:
        if [tensor._version for tensor in _tensors((args, kwargs))] != versions[path]:
            raise CaptureError(f"the leaf `{path}` overwrites what it is given in place; let it write into a clone")
        if any(_is_packed(item) for item in pytree.tree_leaves(output, is_leaf=_is_packed)):
            raise CaptureError(f"the leaf `{path}` puts out a packed sequence; choose a module that pads it within")
        inputs = pytree.tree_leaves((args, kwargs))
        outputs.setdefault(path, []).append(pytree.tree_map(lambda leaf: _described(leaf, inputs), output))

    handles = []
    for path, part in model.named_modules():
        if path in leaves or isinstance(part, classes):
            handles.append(
                part.register_forward_pre_hook(lambda _, a, k, path=path: before(path, a, k), with_kwargs=True)
            )
            handles.append(
                part.register_forward_hook(lambda _, a, k, out, path=path: after(path, a, k, out), with_kwargs=True)
            )
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _described(leaf: Any, inputs: Sequence[Any]) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    storage = leaf.untyped_storage()._cdata
    for position, given in enumerate(inputs):
        if isinstance(given, torch.Tensor) and given.dtype == leaf.dtype and given.untyped_storage()._cdata == storage:
            distance = leaf.storage_offset() - given.storage_offset()
            return InputView(position, tuple(leaf.shape), leaf.stride(), int(distance))
    return to_meta(leaf)


def place_of(error: Exception) -> str:
    """File and line of the innermost frame that belongs neither to torch nor to graphgrow."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users(frame.filename):
            return f" (at {frame.filename}:{frame.lineno}: {frame.line})"
    return ""
