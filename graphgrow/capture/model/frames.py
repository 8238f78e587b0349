"""Which lines of a traceback are the user's."""

from __future__ import annotations

import functools
import os
import traceback
from pathlib import Path

import torch

import graphgrow.errors

_TORCH, _GRAPHGROW = (
    f"{Path(file).resolve().parent}{os.sep}" for file in (torch.__file__, graphgrow.errors.__file__)
)  # with a separator: other packages' names begin like theirs
_FX = f"{_TORCH}fx{os.sep}"
_ENTRY = str(Path(__file__).parents[1] / "trace.py")


@functools.cache
def is_users(file: str) -> bool:
    """Whether a file belongs neither to torch nor to graphgrow, and is one at all."""
    return not str(Path(file).resolve()).startswith((_TORCH, _GRAPHGROW)) and not file.startswith("<")


def models_line() -> str:
    """File and line of the innermost frame that is the user's.

    Within a module of torch's own it is torch's line; who called the capture is never it, so that it is the same line
    wherever a model is captured.
    """
    within = ""
    for frame, number in traceback.walk_stack(None):
        file = frame.f_code.co_filename
        if file == _ENTRY:
            break
        if is_users(file):
            return f"{file}:{number}"
        if not within and file.startswith(_TORCH) and not file.startswith(_FX):
            within = f"{file}:{number}"
    return within
