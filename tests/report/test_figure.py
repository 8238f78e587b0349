"""The figure: written in every format, the same each time, and nothing drawn from what is not there."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from matplotlib import rcParams

from graphgrow.errors import GraphGrowError
from graphgrow.report import figure
from graphgrow.report.figure import drawing, name_points
from tests.report.stages import BARE, stages


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = figure(stages(), tmp_path / "deep" / f"growth.{suffix}")
    assert path.read_bytes().startswith(magic)


def test_the_panels_say_what_they_show(tmp_path: Path) -> None:
    text = figure(stages(), tmp_path / "growth.svg").read_text()
    for words in ("Held-out accuracy", "Parameters", "FLOPs", "Latency", "batch size 8", "widen", "growth stage"):
        assert words in text


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    first, second = (figure(stages(), tmp_path / f"{name}.svg") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    assert figure([BARE], tmp_path / "growth.svg").read_text().count("not measured") == 2


def test_the_users_own_settings_stay(tmp_path: Path) -> None:
    before = dict(rcParams)
    figure(stages(), tmp_path / "growth.png")
    assert dict(rcParams) == before


@pytest.mark.parametrize(("count", "name", "words"), [(0, "a.png", "no stages"), (3, "a", "suffix"), (3, "a.x", "svg")])
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, count: int, name: str, words: str) -> None:
    with pytest.raises(GraphGrowError, match=words):
        figure(stages()[:count], tmp_path / name)


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphGrowError, match="choose another place"):
        figure(stages(), tmp_path / "file" / "growth.png")


def test_names_of_points_cover_neither_each_other_nor_points(tmp_path: Path) -> None:
    generator = random.Random(0)
    points = {str(number): (generator.gauss(0, 1), generator.gauss(0, 1)) for number in range(60)}
    with drawing(tmp_path / "points.png", anything=True, columns=1, size=(4, 3)) as (panel,):
        panel.plot([x for x, _ in points.values()], [y for _, y in points.values()], "o", markersize=4)
        name_points(panel, points)
    boxes = [text.get_window_extent() for text in panel.texts]
    assert 20 < len(boxes) < 60, "in the middle there is no room for all"
    assert {text.get_text() for text in panel.texts} <= set(points)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    places = panel.transData.transform(list(points.values()))
    assert not any(box.contains(*place) for box in boxes for place in places)
