"""Recipe files: what they hold, and what is refused by line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.network.ledger import Entry
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.recipe import read_recipe
from tests.preserved import assert_same_bits


def _file(folder: Path, text: str) -> Path:
    path = folder / "recipe.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_comments_and_seeds(tmp_path: Path) -> None:
    path = _file(tmp_path, "# wider first\nwiden( 0,extra=2 )  # the stem\n\nsplit(0, units=[1, 0]) seed=7\r\n")
    assert read_recipe(path, seed=3) == (Entry("widen(0, extra=2)", 3), Entry("split(0, units=[1, 0])", 7))


def test_a_printed_ledger_is_a_recipe(tmp_path: Path) -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3))
    grown = gg.apply(gg.apply(graph, "widen(0, extra=2)", seed=5), "deepen(1, kind=mlp)", seed=9)
    entries = read_recipe(_file(tmp_path, str(grown.ledger)))
    assert entries == grown.ledger.entries
    assert_same_bits(replay(graph, entries).module, grown.module)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", "lists no mutation"),
        ("widen(0, extra=1)\ngrow it\n", r"line 2 of .*cannot read 'grow it'"),
        ("enlarge(0)", r"line 1 of .*no pass `enlarge`"),
        (f"split(0) seed={2**63}", "line 1 of .*a seed is"),
        ("x" * (2**20 + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(gg.MutationError, match=message):
        read_recipe(_file(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(gg.MutationError, match=r"cannot read the recipe .*: No such file"):
        read_recipe(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"widen(\xff)")
    with pytest.raises(gg.MutationError, match="no UTF-8 text"):
        read_recipe(tmp_path / "latin.txt")
