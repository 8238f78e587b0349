"""Profiles of hypothesis, chosen by HYPOTHESIS_PROFILE: `dev` repeats the same examples, `nightly` draws many new ones,
`quick` runs one of each and does not shrink, `unshrunk` repeats those of `dev` and does not either.
"""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.effort import BASE

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", max_examples=BASE, deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("nightly", max_examples=20 * BASE, deadline=None, suppress_health_check=_SLOW)
settings.register_profile(
    "quick", max_examples=1, deadline=None, derandomize=True, suppress_health_check=_SLOW, phases=[Phase.generate]
)
settings.register_profile("unshrunk", settings.get_profile("dev"), phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state of torch, whatever ran before it."""
    torch.manual_seed(0)
