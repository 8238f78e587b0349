"""What coverage.py saw, as a table: branches by folder, and refusals that nothing reached."""

from __future__ import annotations

import contextlib
from pathlib import Path

import coverage

from tools.branches import counted, refusals, report, table

SOURCE = """
def halved(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    if number < 0:
        raise ValueError(
            "below zero"
        )
    return number // 2
"""


def test_a_refusal_that_no_test_reached_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "halved.py"
    file.write_text(SOURCE)
    parts = []
    for number in (4, 3):
        seen = coverage.Coverage(
            data_file=tmp_path / f"data{number}", branch=True, include=[str(file)], config_file=False
        )
        with seen.collect():
            space: dict[str, object] = {}
            exec(compile(SOURCE, str(file), "exec"), space)
            with contextlib.suppress(ValueError):
                space["halved"](number)
        seen.save()
        parts.append(tmp_path / f"data{number}")
    (count,) = counted(report(parts)).values()
    assert (count.reached, count.branches) == (3, 4)
    assert [line.partition("halved.py")[2] for line in count.silent] == [":6: raise ValueError("]
    assert table({"folder": count}).splitlines()[2:] == [
        "| folder | 4 | 75.0 % | 1 |",
        "| all | 4 | 75.0 % | 1 |",
    ]


def test_what_cannot_be_is_no_refusal() -> None:
    assert list(refusals("raise AssertionError('never')\nraise\nraise KeyError('a')\nraise error")) == [3]
