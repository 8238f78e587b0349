"""A save that is killed or fails at any call leaves one whole state; damaged files are refused or read right."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from pathlib import Path

import pytest

import graphgrow as gg
from tools import faults


@pytest.fixture(scope="module")
def graphs() -> tuple[gg.Graph, gg.Graph]:
    return faults.pair()


@pytest.fixture(scope="module")
def states(graphs: tuple[gg.Graph, gg.Graph], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, bytes]]:
    root = tmp_path_factory.mktemp("states")
    return [faults.state(gg.save(graph, root / str(number))) for number, graph in enumerate(graphs)]


def test_a_save_that_is_killed_leaves_the_state_before_or_after(
    graphs: tuple[gg.Graph, gg.Graph], states: list[tuple[str, str, bytes]], tmp_path: Path
) -> None:
    names = faults.calls_of_a_save(graphs[1], tmp_path / "once")
    assert Counter(names)["fsync"] == 4
    assert Counter(names)["replace"] == 2
    ends = set()
    for at in range(1, _calls(graphs, tmp_path) + 1):
        folder = tmp_path / str(at)
        gg.save(graphs[0], folder)
        assert faults.killed_save(graphs[1], folder, at)
        ends.add(states.index(faults.state(folder)))
    assert ends == {0, 1}


def _calls(graphs: tuple[gg.Graph, gg.Graph], root: Path) -> int:
    """Of a save over another one, which removes the old weights besides."""
    folder = root / "over"
    gg.save(graphs[0], folder)
    return len(faults.calls_of_a_save(graphs[1], folder))


@pytest.mark.parametrize("number", faults.ERRNOS, ids=errno.errorcode.get)
def test_a_call_that_fails_leaves_a_whole_state_and_says_which_file(
    graphs: tuple[gg.Graph, gg.Graph], states: list[tuple[str, str, bytes]], tmp_path: Path, number: int
) -> None:
    for at in range(1, _calls(graphs, tmp_path) + 1):
        folder = tmp_path / str(at)
        gg.save(graphs[0], folder)
        said = faults.failing_save(graphs[1], folder, at, number)
        found = faults.state(folder)
        assert found in states
        if said is None:
            assert found == states[1]
        else:
            assert str(folder) in said
            assert "bytes" in said
            assert os.strerror(number) in said
        assert not list(folder.glob("*.part"))


def test_mutated_files_are_refused_or_read_right(
    graphs: tuple[gg.Graph, gg.Graph], states: list[tuple[str, str, bytes]], tmp_path: Path
) -> None:
    saved, draw = gg.save(graphs[1], tmp_path / "saved"), random.Random(0)
    outcomes = Counter(faults.damaged_trial(saved, tmp_path / "folder", states[1], draw) for _ in range(150))
    assert set(outcomes) <= {"refused", "read right"}
    assert outcomes["refused"] > 100


def test_flipped_bits_of_the_ledger_are_seen(
    graphs: tuple[gg.Graph, gg.Graph], states: list[tuple[str, str, bytes]], tmp_path: Path
) -> None:
    """One bit in every byte; a blank that becomes another blank changes nothing."""
    saved, folder = gg.save(graphs[1], tmp_path / "saved"), tmp_path / "folder"
    gg.save(graphs[1], folder)
    whole = (saved / "ledger.json").read_bytes()
    for position in range(len(whole)):
        damaged = whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        (folder / "ledger.json").write_bytes(damaged)
        try:
            found = faults.state(folder)
        except gg.LedgerError:
            continue
        assert found == states[1]
        assert whole[position : position + 1].isspace()


def test_single_bits_of_every_file_are_seen(tmp_path: Path) -> None:
    """Every 41st of them; all with `python tools/faults.py --flips`."""
    outcomes = faults.flipped_bits(tmp_path, every=41)
    assert outcomes["read wrong"] == 0
    assert outcomes["refused"] > 100
