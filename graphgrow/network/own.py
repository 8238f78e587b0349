"""A network of its own: a copy that shares no tensor with any other."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network

N = TypeVar("N", bound=Network)


def own(network: N) -> N:
    """The same network over copies of all its parameters and buffers, so that training it trains no other."""
    return dataclasses.replace(network, module=Editor(network.module, share=False).finish())
