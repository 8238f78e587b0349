"""Whether Dynamo is there, what torch.compile has made, and when Dynamo may be loaded.

It takes longer to load than most traces, and must not be loaded in the middle of one: it keeps what it finds in torch
as it is loaded, which while a forward is recorded are stand-ins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TypeVar

import torch

Made = TypeVar("Made")


def dynamo_is_loaded() -> bool:
    """Whether anything has loaded Dynamo in this process; before that nothing can be compiled."""
    return "torch._dynamo.eval_frame" in sys.modules


def is_compiled(module: object) -> bool:
    """Whether torch.compile made a module of another one."""
    return dynamo_is_loaded() and isinstance(module, torch._dynamo.eval_frame.OptimizedModule)


def before_dynamo(trace: Callable[[], Made]) -> Made:
    """What a trace makes; where something in it asks for Dynamo for the first time, it is made anew, behind that.

    Own functions and layers may ask for it, as they are run on tensors without data; torch's operators are not let.

    Args:
        trace: records a forward; it leaves nothing behind where it is ended by an error.
    """
    if "torch._dynamo" in sys.modules:
        return trace()
    away = _Away()
    sys.meta_path.insert(0, away)
    try:
        made = trace()
    except Exception:
        if not away.asked:
            raise
    else:
        if not away.asked:  # else what asked has gone on without
            return made
    finally:
        sys.meta_path.remove(away)
    import_module("torch._dynamo")

    return trace()


class _Away(MetaPathFinder):
    """Ends every attempt to load Dynamo by an error.

    Attributes:
        asked: whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch._dynamo":
            return None
        self.asked = True
        raise ImportError("Dynamo is not loaded while a forward is traced")
