"""Whether Dynamo is there, and what torch.compile has made: Dynamo itself takes longer to load than most traces."""

from __future__ import annotations

import sys

import torch


def dynamo_is_loaded() -> bool:
    """Whether anything has loaded Dynamo in this process; before that nothing can be compiled."""
    return "torch._dynamo.eval_frame" in sys.modules


def is_compiled(module: object) -> bool:
    """Whether torch.compile made a module of another one."""
    return dynamo_is_loaded() and isinstance(module, torch._dynamo.eval_frame.OptimizedModule)
