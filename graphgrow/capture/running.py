"""Running a model while it is captured: in one mode, on copies of its inputs, with everything put back afterwards."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphgrow.errors


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


def run_in_eval(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One call in eval mode, on copies of the inputs and with random numbers that are the same each time."""
    args, kwargs = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, (args, kwargs))
    with in_mode(model, False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return model(*args, **kwargs)


def run_in_train(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `run_in_eval` in train mode; its buffers are put back afterwards."""
    args, kwargs = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, (args, kwargs))
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with in_mode(model, True), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return model(*args, **kwargs)
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)


def place_of(error: Exception) -> str:
    """File and line of the innermost frame that belongs neither to torch nor to graphgrow."""
    ours = tuple(str(Path(file).resolve().parent) for file in (torch.__file__, graphgrow.errors.__file__))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not str(Path(frame.filename).resolve()).startswith(ours) and not frame.filename.startswith("<"):
            return f" (at {frame.filename}:{frame.lineno}: {frame.line})"
    return ""
