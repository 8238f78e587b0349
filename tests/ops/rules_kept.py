"""The rules there are, as they were, after a test that registers its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphgrow.ops import registry


@contextmanager
def rules_kept() -> Iterator[None]:
    """Put every rule back that was there at the start, and take away what came since."""
    registry.load_rules()
    rules, functions = dict(registry._RULES), list(registry._FUNCTIONS)
    try:
        yield
    finally:
        registry._RULES.clear()
        registry._RULES.update(rules)
        registry._FUNCTIONS[:] = functions
