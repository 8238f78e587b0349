"""The data of a search, by name: three parts of images (or other inputs) with their classes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch

from graphgrow.data.digits import digits
from graphgrow.errors import SearchError


class Part(Protocol):
    """Inputs of shape (count, ...) and their classes, int64 of shape (count,)."""

    @property
    def images(self) -> torch.Tensor:
        """The inputs."""

    @property
    def labels(self) -> torch.Tensor:
        """Their classes."""


@dataclass(frozen=True)
class Parts:
    """The three parts of the data.

    Attributes:
        training: what weights are fitted to.
        validation: what candidates are judged by, and what architecture parameters are fitted to.
        test: measures the result, and decides nothing.
    """

    training: Part
    validation: Part
    test: Part


@cache
def load_data(name: str) -> Parts:
    """The data of a name: `digits`, or `package.module:function`, which is called.

    Raises:
        SearchError: if there is no such data, or it lacks a part.
    """
    made: Any = digits() if name == "digits" else _called(name)
    parts: list[Any] = [getattr(made, part, None) for part in ("training", "validation", "test")]
    if any(not _is_part(part) for part in parts):
        raise SearchError(f"the data {name} wants parts training, validation and test, each with images and labels")
    return Parts(*parts)


def _called(name: str) -> Any:
    module, colon, function = name.partition(":")
    if not colon:
        raise SearchError(f"there is no data {name!r}; give digits, or package.module:function")
    try:
        return getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise SearchError(f"cannot get the data {name}: {error}; is its folder on PYTHONPATH?") from error


def _is_part(part: Any) -> bool:
    tensors: list[Any] = [getattr(part, name, None) for name in ("images", "labels")]
    return all(isinstance(tensor, torch.Tensor) for tensor in tensors) and len(tensors[0]) == len(tensors[1])
