"""One line for each task: the best arms by the mean over seeds, and what they are compared with."""

from __future__ import annotations

from tools.bench import summary
from tools.bench.results import Rows

HALF = ", 1/2 of the FLOPs"


def rows(**arms: list[float]) -> Rows:
    names = {
        "whole": "big",
        "big": "big" + HALF,
        "rise": "big, its learning rate rising for a fifth" + HALF,
        "small": "small" + HALF,
        "dnm": "dnm" + HALF,
        "stack": "stack" + HALF,
        "own": "dnm: its final net from scratch" + HALF,
        "quarter": "dnm, 1/4 of the FLOPs",
    }
    return [{"arm": names[arm], "accuracy": value} for arm, values in arms.items() for value in values]


def test_the_best_arms_are_those_of_the_highest_mean_within_half_of_the_flops() -> None:
    plain = rows(whole=[0.9], big=[0.8], stack=[0.7])
    digits = rows(
        whole=[0.98, 0.96],
        big=[0.90, 0.94],
        rise=[0.91, 0.95],
        small=[0.5, 0.99],
        dnm=[0.95, 0.93],
        stack=[0.9, 0.9],
        own=[0.9, 0.8],
        quarter=[0.99, 0.99],
    )
    shown = summary.show({name: digits if name == "digits" else plain for name in summary.TASKS})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()]
    assert cells[2] == [
        "digits",
        "97.0 ± 1.4",
        "93.0 ± 2.8 (big, longer rise)",
        "94.0 ± 1.4 (dnm)",
        "+1.0",
        "85.0 ± 7.1",
    ]
    assert cells[3] == ["generated images", "90.0", "80.0 (big)", "70.0 (stack)", "-10.0", "80.0 (big)"]
