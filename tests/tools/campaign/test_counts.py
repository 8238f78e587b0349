from __future__ import annotations

from collections import Counter
from pathlib import Path

from tools.campaign.counts import Batch, Find, append, read, total


def batch(seed: int, length: int) -> Batch:
    finds = [Find("nn.Linear(1, 1)", (("split(0)", 3),), "outputs differ")] if seed else []
    return Batch(seed, "abc", Counter(rewrites=7), Counter(split=7), Counter({length: 2}), finds, 1.4)


def test_batches_come_back_and_add_up(tmp_path: Path) -> None:
    for seed, length in ((0, 8), (1, 32), (2, 9)):
        append(tmp_path / "new" / "found.jsonl", batch(seed, length))
    counts, passes, finds = total(read(tmp_path / "new" / "found.jsonl"))
    assert (counts["rewrites"], counts["longest chain"], counts["CPU seconds"], passes["split"]) == (21, 32, 3, 21)
    assert finds == [*batch(1, 8).finds, *batch(2, 8).finds]


def test_a_line_that_was_cut_off_is_left_out_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    append(path, batch(0, 8))
    with path.open("a") as file:
        file.write('{"seed": 1, "com')
    assert [line["seed"] for line in read(path)] == [0]
    append(path, batch(1, 8))
    assert [line["seed"] for line in read(path)] == [0, 1]


def test_no_file_holds_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "missing.jsonl") == []
