"""What the sweep does between two mutations for the sake of large models takes longer here than the mutations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tools.sweep import chain, singles


@pytest.fixture(autouse=True)
def uncollected(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chain, singles):
        monkeypatch.setattr(module, "gc", SimpleNamespace(collect=lambda: 0))
