"""Put the tables of the benchmarks into pages of docs, from the JSON files beside them.

    python tools/bench/page.py docs/speed.md
    python tools/bench/page.py docs/search.md
    python tools/bench/page.py docs/learning.md

The page's words are written by hand. Between `<!-- NAME -->` and `<!-- end of NAME -->` stands what is in
docs/speed/NAME.json: the table, and the commands, versions and machine. A table may stand in a page of that folder
instead, as in docs/learning/trials.md. `summary` is made of several files of docs/learning.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.bench import analysis, calls, large, linearity, mutation, onnx_speed, summary
from tools.bench.learning import plateau, tune
from tools.bench.learning import run as learning
from tools.bench.results import Results, Rows
from tools.bench.search import arms, choice, cost

SHOW: dict[str, Callable[[Rows], str]] = {
    "calls": calls.times,
    "analysis": analysis.show,
    "linearity": linearity.show,
    "mutation": mutation.show,
    "large": large.show,
    "onnx_speed": onnx_speed.show,
    "arms": arms.show,
    "choice": choice.show,
    "cost": cost.show,
    "digits": learning.show,
    "patterns": learning.show,
    "digits-long": learning.show,
    "patterns-long": learning.show,
    "text": learning.show,
    "text-long": learning.show,
    "text-deep": learning.show,
    "plateau": plateau.show,
    "tuning": tune.show,
}


def section(results: Results, show: Callable[[Rows], str]) -> str:
    """One table with the runs that it comes from."""
    commands = "\n".join(dict.fromkeys(f"    {run['command']}" for run in results.runs))
    sources: dict[str, dict[str, None]] = {}
    for run in results.runs:
        sources.setdefault(_made_with(run), {})[_sources(run)] = None
    made = "; ".join(f"{circumstances}; sources {', '.join(found)}" for circumstances, found in sources.items())
    return f"{show(results.rows)}\n\n{commands}\n\nMeasured with {made}."


def _sources(run: dict[str, Any]) -> str:
    """The digest of what every benchmark depends on, and of the parts that this one does."""
    parts = ", ".join(f"{part} {digest}" for part, digest in run.get("parts", {}).items())
    return f"{run['versions']['source']} ({parts})" if parts else str(run["versions"]["source"])


def _made_with(run: dict[str, Any]) -> str:
    versions, machine = run["versions"], run["machine"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "onnxruntime", "python"))
    return (
        f"{named}, on {machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"{machine['threads']} thread of torch, {machine['system']}"
    )


def filled(page: str, sections: dict[str, str]) -> str:
    """The page with new text between the marks.

    Raises:
        ValueError: if a section has no marks in the page.
    """
    for name, text in sections.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not marks.search(page):
            raise ValueError(f"the page has no `<!-- {name} -->` with an `<!-- end of {name} -->` behind it; add them")
        page = marks.sub(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)  # type: ignore[misc]
    return page


def tables(folder: Path) -> dict[str, str]:
    """The sections that follow from the JSON files of a folder."""
    found = {name: Results.read(folder / f"{name}.json") for name in SHOW}
    sections = {name: section(found[name], show) for name, show in SHOW.items() if found[name].rows}
    if sections.keys() >= summary.TASKS.keys():
        sections["summary"] = summary.show({name: found[name].rows for name in summary.TASKS})
    return sections


def refilled(pages: dict[Path, str], sections: dict[str, str]) -> dict[Path, str]:
    """The pages, each with the sections of which it has the marks.

    Raises:
        ValueError: if a section has marks in none of them.
    """
    first, *_ = pages
    homes = {name: [path for path, text in pages.items() if f"<!-- {name} -->" in text] or [first] for name in sections}
    return {
        path: filled(text, {name: table for name, table in sections.items() if path in homes[name]})
        for path, text in pages.items()
    }


def main() -> None:
    """Fill the page that is named, and those of its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page
    folder = page.with_suffix("")
    pages = {path: path.read_text(encoding="utf-8") for path in (page, *sorted(folder.glob("*.md")))}
    for path, text in refilled(pages, tables(folder)).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
