"""Profiles of hypothesis: `dev` repeats the same examples, `nightly` (HYPOTHESIS_PROFILE=nightly) draws many new ones."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.effort import BASE

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", max_examples=BASE, deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("nightly", max_examples=20 * BASE, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state of torch, whatever ran before it."""
    torch.manual_seed(0)
