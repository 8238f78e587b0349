"""The calls of users, timed in processes of their own and shown with their ratios."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import calls


def test_a_row_has_medians_and_ratios_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([8.0, 2.0, 6.0, 3.0, 4.0, 1.0])  # before and after in turn
    monkeypatch.setattr(calls, "in_child", lambda *_: dict.fromkeys(calls.CALLS, next(runs)))
    row = calls.row("net", Path("before"), 3, 1)
    assert row["trace"] == {"cpu": 2.0, "ratio": 0.25, "least": 0.25, "most": 0.5}
    shown = calls.show([row])
    assert "0.25 (0.25 to 0.50)" in shown
    assert "2 s" in shown


def test_without_another_checkout_there_are_no_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "in_child", lambda *_: dict.fromkeys(calls.CALLS, 0.5))
    assert "before" not in calls.show([calls.row("net", None, 1, 2)])
    assert "net, 2" in calls.show([calls.row("net", None, 1, 2)])
