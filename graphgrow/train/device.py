"""The device that a training runs on, what compiles for it, and what of a training lies there."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.errors import TrainingError


def usable_device(name: str) -> torch.device:
    """A device by its name; `cuda` alone is under torchrun another GPU for each process of a machine.

    Raises:
        TrainingError: if there is none of that name here, or it has no float64, in which growth is verified.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainingError(f"there is no device {name!r}; there are cpu, cuda, cuda:0, ...") from None
    if device.type == "cpu":
        return device
    if device.type == "mps":
        raise TrainingError("mps has no float64, in which each growth is verified; use cpu or cuda")
    if device.type != "cuda":
        raise TrainingError(f"a device of the kind {device.type!r} is not supported; use cpu or cuda")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise TrainingError(
            f"torch {torch.__version__} sees no GPU here; use cpu, or a torch that was built for the GPU"
        )
    own = os.environ.get("LOCAL_RANK", "0")
    index = device.index if ":" in name else int(own)
    if index >= count:
        raise TrainingError(f"there is no GPU {index}; torch sees {count}, which are counted from 0")
    return torch.device("cuda", index)


def require_backend(name: str) -> None:
    """Refuse a backend that torch.compile does not know; none at all is well.

    Raises:
        TrainingError: names those that there are.
    """
    if not name:
        return
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        raise TrainingError(f"torch.compile has no backend {name!r} here; there are {', '.join(sorted(known))}")


def random_states(device: torch.device) -> list[torch.Tensor]:
    """Of the generators that a training draws from: the CPU's, and a GPU's where it runs on one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_states(device: torch.device, states: list[torch.Tensor]) -> None:
    """Put back what `random_states` gave.

    Raises:
        TrainingError: if it was on a device of another kind.
    """
    if len(states) != len(random_states(device)):
        raise TrainingError("the checkpoint is of a training on a device of another kind; go on there, or begin anew")
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def placed(state: Any, device: torch.device) -> Any:
    """A nested state with its tensors on a device; the states of generators, which are bytes, stay on the CPU."""

    def place(leaf: Any) -> Any:
        return leaf.to(device) if isinstance(leaf, torch.Tensor) and leaf.dtype != torch.uint8 else leaf

    return pytree.tree_map(place, state)
