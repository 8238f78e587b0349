"""What every model's process needs is imported here once; the processes are forked from that where the system can.

Importing takes longer than capturing a small model does.
"""

from __future__ import annotations

import contextlib
import importlib

import torch._dynamo  # noqa: F401

from graphgrow.errors import ModelError
from graphgrow.ops.registry import load_rules
from graphgrow.store.names import import_torchvision
from tools.sweep import chain, child, singles, subject  # noqa: F401

load_rules()
with contextlib.suppress(ModelError):
    import_torchvision()
for library in ("timm", "transformers"):
    with contextlib.suppress(ImportError):
        importlib.import_module(library)
