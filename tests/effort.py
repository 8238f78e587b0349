"""How much work the property tests do: one number for each test, scaled by the hypothesis profile."""

from __future__ import annotations

from hypothesis import settings

BASE = 10  # examples of the profile `dev`


def examples(count: int) -> settings:
    """Settings with this many examples in the profile `dev`, and proportionally more in larger ones."""
    return settings(max_examples=max(1, count * settings().max_examples // BASE))
