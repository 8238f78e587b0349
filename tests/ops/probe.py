"""Probes for our own rules, of sizes that hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from graphgrow.rulecheck.probe import Draw, Probe, normal_tensor, op

__all__ = ["Draw", "Probe", "drawer", "normal_tensor", "op"]


def drawer(data: st.DataObject) -> Draw:
    """Whole numbers drawn by hypothesis."""
    return lambda low, high: data.draw(st.integers(low, high))
