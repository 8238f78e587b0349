"""Profiles of hypothesis, chosen by HYPOTHESIS_PROFILE: `dev` repeats the same examples, `nightly` draws many new ones,
`quick` runs one of each and does not shrink, `unshrunk` repeats those of `dev` and does not either.
"""

from __future__ import annotations

import gc
import os
import re

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
    torch.default_generator.manual_seed(0)  # torch.manual_seed formats a traceback for each kind of device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that hold an address: they differ from process to process, and so could not be shared out.

    Raises:
        pytest.UsageError: if there is one.
    """
    addressed = [item.nodeid for item in items if re.search(r"0x[0-9a-f]{6,}", item.nodeid)]
    if addressed:
        raise pytest.UsageError(f"{len(addressed)} tests are named by an address, the first {addressed[0]}; give ids=")


def pytest_collection_finish() -> None:
    """Spare every later garbage collection what stays to the end: all that was imported and collected by now."""
    gc.collect()
    gc.freeze()
