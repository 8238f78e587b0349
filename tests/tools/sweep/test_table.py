"""Every row is on the page: wrong ones bold, stopped ones with their reason, reasons ranked."""

from __future__ import annotations

from tools.sweep.options import Options
from tools.sweep.row import Chain, PassCounts, Row
from tools.sweep.table import by_pass, chain_words, page, summary, table

OPTIONS = Options(sites=2).to_json()


def row(model: str, **values: object) -> Row:
    made = Row(model, OPTIONS, {"torch": "2.13"}, complete=True, nodes=5, input="2x3", parameters=1200)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def line_of(text: str, model: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("|") and model in line)
    return line


GOOD = row("good", passes={"widen": PassCounts(9, {"preserved": 2}, {"frozen: x": 1, "too | small": 4})}, worst=0.25)
BAD = row("bad", passes={"split": PassCounts(3, {"preserved": 1, "wrong": 1}, {})}, problems=["wrong: split(a): no"])
SLOW = row("slow", complete=False, stopped="stopped at the time limit of 5 s in `capture`", nodes=0)
NONE = row("none", failure="CaptureError: no way", nodes=0)
ROWS = [GOOD, BAD, SLOW, NONE]


def test_each_model_is_one_line_and_the_wrong_one_is_bold() -> None:
    text = table(ROWS)
    lines = text.splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in line_of(text, "bad").strip("|").split("|")]
    assert all(cell.startswith("**") and cell.endswith("**") for cell in cells if cell)
    assert "**1 of 2 (3)**" in cells
    assert "**" not in line_of(text, "good")
    assert "2 of 2 (9)" in line_of(text, "good")
    assert "stopped early" in line_of(text, "| slow |")
    assert "not captured" in line_of(text, "none")


def test_each_pass_is_told_of_each_model_to_which_it_offers_anything() -> None:
    several = {"widen": PassCounts(9, {"preserved": 2, "wrong": 1}), "split": PassCounts(), "deepen": PassCounts(1_200)}
    text = by_pass([row("several", passes=several), row("failed", passes={"split": PassCounts(listing="a | b")}), NONE])
    assert line_of(text, "several") == "| several | `deepen` 0 of 0 (1,200), `widen` 2 of 3 (9) |"
    assert line_of(text, "failed") == "| failed | `split` sites: a \\| b |"
    assert "none" not in text


def test_columns_without_anything_are_left_out() -> None:
    head = table(ROWS).splitlines()[0]
    assert "mutations" in head
    assert "ONNX" not in head
    exported = row("exported", onnx={"parity": 1})
    assert "ONNX" in table([*ROWS, exported]).splitlines()[0]


def test_options_are_a_numbered_column_where_they_differ() -> None:
    assert "| options |" not in table([GOOD, BAD]).splitlines()[0]
    other = row("other", options=Options(sites=7).to_json())
    text = page("Zoo", [GOOD, BAD, other])
    assert ", 2: `--sites 7 --seed 0`" in text
    rows = table([GOOD, BAD, other])
    head, line = (text.strip("| ").split(" | ") for text in (rows.splitlines()[0], line_of(rows, "| other |")))
    assert line[head.index("options")] == "2"


def test_each_row_names_its_commit_and_the_page_the_days() -> None:
    old, new = row("old", commit="1a2b3c4 of 2026-11-27"), row("new", commit="5d6e7f8+ of 2026-11-28")
    text = page("Zoo", [old, new, row("unknown")])
    assert line_of(text.partition("## What is not well")[0], "| new | complete |").endswith("| 5d6e7f8+ |")
    assert "Sources of graphgrow: of 2026-11-27 (1), 2026-11-28 (1), an unknown day (1)." in text


def test_the_summary_counts_everything() -> None:
    chained = row("c", chain=Chain(5, 1.5, {"preserved": 5}, {"whole": "preserved"}))
    broken = row("d", chain=Chain(4, 1.5, {"preserved": 3, "declined": 1}, {"whole": "preserved"}))
    text = summary([*ROWS, chained, broken])
    assert text.startswith("**6 models** (1 not captured, 1 stopped early), **4 mutations tried**: 3 preserved, ")
    assert "0 undetermined, 1 wrong, 0 offered but declined" in text
    assert "5 places declined with a reason. 1 of 2 chains well, 9 mutations in them." in text


def test_the_page_names_what_is_wrong_and_ranks_reasons() -> None:
    again = row("again", passes={"widen": PassCounts(1, {}, {"frozen: x": 2})}, frozen={"a model output": 3})
    text = page("Zoo", [*ROWS, again])
    assert "- `bad`: wrong: split(a): no" in text
    assert "- `none`: not captured: CaptureError: no way" in text
    assert "- `slow`: stopped at the time limit of 5 s in `capture`" in text
    ranked = [line for line in text.splitlines() if line.startswith("| `widen` |")]
    assert ranked == ["| `widen` | 4 | 1 | too \\| small |", "| `widen` | 3 | 2 | frozen: x |"]
    assert "| channel groups | 3 | 1 | a model output |" in text


def test_a_page_without_rows_is_a_page() -> None:
    assert "**0 models**" in page("Zoo", [])


def test_chains_in_words() -> None:
    parts = {"whole": "preserved", "replay": "same", "load": "same", "onnx": "parity"}
    words = chain_words(Chain(20, 1.94, {"preserved": 19, "undetermined": 1}, parts))
    assert words == (
        "20 mutations, 1.9x, steps 19 of 20 preserved, whole preserved, replay same, load same, ONNX parity"
    )
    assert chain_words(Chain(0, 1.0)) == "no mutation applies"
    assert chain_words(Chain()) == ""
    assert chain_words(Chain(steps={"preserved": 3})) == "steps 3 of 3 preserved"  # stopped in the middle
