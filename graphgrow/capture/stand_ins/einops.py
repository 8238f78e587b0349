"""einops, which knows tensors by their class, given the proxies of a trace."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx


@contextmanager
def einops_open(proxy: type[fx.Proxy]) -> Iterator[None]:
    """Let einops, where the model imported it, treat proxies as torch's tensors."""
    backends: Any = sys.modules.get("einops._backends")
    if backends is None:
        yield
        return
    backends._type2backend[proxy] = _proxy_backend(backends)
    try:
        yield
    finally:
        del backends._type2backend[proxy]


@functools.cache
def _proxy_backend(backends: Any) -> Any:
    """Sizes come as a list, so that einops does not cache what belongs to one trace."""
    torch_backend: type = backends.TorchBackend
    return type("ProxyBackend", (torch_backend,), {"shape": lambda _, x: list(x.shape)})()
