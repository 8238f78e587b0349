"""The tables go between the marks, and the words around them stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench.page import filled, refilled, section, tables
from tools.bench.results import Results, Rows

ROOT = Path(__file__).resolve().parents[3]

PAGE = "# Speed\n\nWords.\n\n<!-- a -->\nold\n<!-- end of a -->\n\nMore.\n\n<!-- b -->\n<!-- end of b -->\nEnd.\n"


def test_each_section_is_put_between_its_marks() -> None:
    once = filled(PAGE, {"a": "| x\\1 |", "b": "new"})
    assert once == (
        "# Speed\n\nWords.\n\n<!-- a -->\n\n| x\\1 |\n\n<!-- end of a -->\n\nMore.\n\n"
        "<!-- b -->\n\nnew\n\n<!-- end of b -->\nEnd.\n"
    )
    assert filled(once, {"a": "| x\\1 |"}) == once


def test_a_section_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no `<!-- c -->`"):
        filled(PAGE, {"c": "text"})


def test_a_section_names_every_command_and_each_circumstance_once() -> None:
    machine = {"cores": 2, "processor": "P", "memory_gib": 1.5, "threads": 1, "system": "S"}
    versions = {"torch": "2", "torchvision": "3", "onnxruntime": "4", "python": "5"}
    runs = [
        {"command": f"python {name}", "versions": {**versions, "source": source}, "machine": machine}
        for name, source in (("one", "abc"), ("two", "def"), ("one", "abc"))
    ]

    def show(rows: Rows) -> str:
        return f"{len(rows)} rows"

    assert section(Results(runs, [{"run": 0}, {"run": 1}]), show) == (
        "2 rows\n\n    python one\n    python two\n\nMeasured with torch 2, torchvision 3, "
        "onnxruntime 4, python 5, on 2 cores of P, 1.5 GiB, 1 thread of torch, S; sources abc, def."
    )
    runs[1]["parts"] = {"train": "012", "data": "345"}
    assert section(Results(runs, [{"run": 0}, {"run": 1}]), show).endswith("sources abc, def (train 012, data 345).")


def test_each_page_gets_the_sections_of_which_it_has_the_marks() -> None:
    first, second = Path("a.md"), Path("a/more.md")
    pages = {first: "<!-- x -->\n<!-- end of x -->", second: "<!-- y -->\n<!-- end of y -->"}
    done = refilled(pages, {"x": "1", "y": "2"})
    assert done == {first: "<!-- x -->\n\n1\n\n<!-- end of x -->", second: "<!-- y -->\n\n2\n\n<!-- end of y -->"}
    with pytest.raises(ValueError, match="no `<!-- z -->`"):
        refilled(pages, {"z": "3"})


@pytest.mark.parametrize("name", ["learning", "search", "speed"])
def test_the_pages_hold_what_the_files_beside_them_say(name: str) -> None:
    folder = ROOT / "docs" / name
    paths = (folder.with_suffix(".md"), *sorted(folder.glob("*.md")))
    pages = {path: path.read_text(encoding="utf-8") for path in paths}
    assert refilled(pages, tables(folder)) == pages
