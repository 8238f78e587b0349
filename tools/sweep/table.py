"""The rows as a page of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tools.sweep.options import Options
from tools.sweep.row import WRONG, Chain, PassCounts, Row
from tools.sweep.sources import HEAD, by_source

INTRODUCTION = """Each pass listed its mutations on each model; all of them, or a sample of `--sites`, were applied by
themselves and verified in float64, in eval and in train mode ([verification.md](verification.md)). Then, where there is
a chain, it was drawn over all passes, verified, replayed from its ledger, saved and loaded, and exported to ONNX.
Mutations are those preserved *of* those tried (in brackets: offered). Rows in which something is wrong are bold. Errors
are in multiples of their bounds. Written by `python tools/coverage.py`; the last column is the commit that a row was
made with (`+`: and changes).
"""

_WORDS = {
    "preserved": "preserved",
    "undetermined": "undetermined",
    "wrong": "wrong",
    "declined": "offered but declined",
    "error": "errors",
    "memory": "out of memory",
}
_LONGEST = 160


def page(title: str, rows: Sequence[Row]) -> str:
    """The whole page.

    Args:
        title: its heading.
        rows: in order.
    """
    sources = "\n".join([_line(HEAD), f"|{'---|' * len(HEAD)}", *map(_line, by_source(rows))])
    parts = [f"# {title}\n", INTRODUCTION, f"{summary(rows)}\n", f"{sources}\n", f"{_made_with(rows)}\n"]
    parts.append(table(rows))
    problems = [f"- `{row.model}`: {_stopping(row)}" for row in rows if _stopping(row)]
    problems += [f"- `{row.model}`: {problem}" for row in rows if not row.failure for problem in row.problems]
    parts.append("## What is not well\n\n" + ("\n".join(problems) or "Nothing."))
    parts.append("## Each pass on each model\n\n" + by_pass(rows))
    names = _passes(rows)
    refusals = [_ranking(f"`{name}`", [(row.model, _of(row, name).refusals) for row in rows]) for name in names]
    parts.append("## Where a pass is declined, and why\n\n" + _reasons("pass", refusals))
    frozen = [
        _ranking("channel groups", [(row.model, row.frozen) for row in rows]),
        _ranking("nodes", [(row.model, row.unknown) for row in rows]),
    ]
    parts.append("## What cannot grow, and why\n\n" + _reasons("what", frozen))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def summary(rows: Sequence[Row]) -> str:
    """Models, mutations and places, in one line."""
    failed, stopped = sum(bool(row.failure) for row in rows), sum(bool(row.stopped) for row in rows)
    kinds = [f"{sum(row.count(kind) for row in rows):,} {words}" for kind, words in _WORDS.items()]
    places = sum(sum(counts.refusals.values()) for row in rows for counts in row.passes.values())
    chains = [row.chain for row in rows if row.chain.parts]
    well = sum(not {*chain.steps, *chain.parts.values()} & set(WRONG) for chain in chains)
    return (
        f"**{len(rows)} models** ({failed} not captured, {stopped} stopped early), "
        f"**{sum(row.count() for row in rows):,} mutations tried**: {', '.join(kinds)}. "
        f"{places:,} places declined with a reason. {well} of {len(chains)} chains well, "
        f"{sum(chain.length for chain in chains):,} mutations in them."
    )


def table(rows: Sequence[Row]) -> str:
    """One row a model; columns in which no row has anything are left out."""
    numbers = _numbered(rows)
    varied = len(numbers) > 1
    head = ["model", "state", "input", "captured", "nodes", "parameters", "in growable groups", "mutations"]
    head += ["largest error", "ONNX", "chain", "seconds (slowest)", "GiB"]
    head += ["options"] if varied else []
    head += ["commit"]
    lines = []
    for row in rows:
        offered = sum(counts.offered for counts in row.passes.values())
        cells = [row.model, _state(row), *_captured(row)]
        cells += [_share(row.count("preserved"), row.count(), offered) if row.passes else ""]
        cells += [f"{row.worst:.2f}" if row.count() else "", _onnx(row), chain_words(row.chain)]
        cells += [_seconds(row), f"{row.peak_gib:.1f}" if row.peak_gib else ""]
        cells += [numbers[str(Options.from_json(row.options))]] if varied else []
        cells += [row.commit.partition(" ")[0]]
        cells = [cell.replace("|", "\\|") for cell in cells]
        lines.append([f"**{cell}**" if cell and row.wrong else cell for cell in cells])
    used = [place for place in range(len(head)) if not lines or any(line[place] for line in lines)]
    shown = [[line[place] for place in used] for line in (head, *lines)]
    return "\n".join([_line(shown[0]), f"|{'---|' * len(used)}", *map(_line, shown[1:])])


def by_pass(rows: Sequence[Row]) -> str:
    """For each model, what came of each pass that offered anything, or whose sites could not be listed."""
    lines = []
    for row in rows:
        told = {name: counts for name, counts in row.passes.items() if counts.offered or counts.listing}
        words = [f"`{name}` {_pass_words(told[name])}" for name in sorted(told)]
        lines += [_line([row.model, ", ".join(words).replace("|", "\\|")])] if words else []
    return "\n".join([_line(["model", "mutations of each pass"]), "|---|---|", *lines]) if lines else "Nothing."


def chain_words(chain: Chain) -> str:
    """The chain in a few words."""
    if not chain.parts and not chain.steps:
        return "no mutation applies" if chain.growth else ""
    tried = sum(chain.steps.values())
    steps = [f"steps {chain.steps.get('preserved', 0)} of {tried} preserved"] if tried else []
    parts = [f"{'ONNX' if part == 'onnx' else part} {kind}" for part, kind in chain.parts.items()]
    length = [f"{chain.length} mutations, {chain.growth:.1f}x"] if chain.length else []
    return ", ".join([*length, *steps, *parts])


def _made_with(rows: Sequence[Row]) -> str:
    options = Counter(str(Options.from_json(row.options)) for row in rows)
    numbers = _numbered(rows)
    versions = Counter(f"{n} {value}" for row in rows for n, value in row.versions.items() if n != "source")
    days = Counter(row.commit.rpartition(" ")[2] or "an unknown day" for row in rows)
    number = {text: f"{numbers[text]}: " if len(options) > 1 else "" for text in options}
    words = [f"{number[text]}`{text}` ({count} models)" for text, count in options.most_common()]
    made = [f"{name} ({count})" for name, count in sorted(versions.items())]
    sources = [f"{day} ({count})" for day, count in sorted(days.items())]
    return f"Options: {', '.join(words)}. Versions: {', '.join(made)}. Sources of graphgrow: of {', '.join(sources)}."


def _numbered(rows: Sequence[Row]) -> dict[str, str]:
    """A number for each set of options, those of most rows first."""
    options = Counter(str(Options.from_json(row.options)) for row in rows)
    return {text: str(number) for number, (text, _) in enumerate(options.most_common(), 1)}


def _stopping(row: Row) -> str:
    return f"not captured: {row.failure}" if row.failure else row.stopped


def _captured(row: Row) -> list[str]:
    if not row.nodes:
        return [""] * 5
    way = f"{row.way}, {row.modes}"
    return [row.input, way, str(row.nodes), f"{row.parameters:,}", f"{row.growable:.1%}"]


def _state(row: Row) -> str:
    """In one word; the reasons stand below the table."""
    return "not captured" if row.failure else "stopped early" if row.stopped else "complete"


def _pass_words(counts: PassCounts) -> str:
    if counts.listing:
        return f"sites: {counts.listing}"
    return _share(counts.outcomes.get("preserved", 0), counts.tried, counts.offered)


def _share(preserved: int, tried: int, offered: int) -> str:
    return f"{preserved} of {tried} ({offered:,})"


def _seconds(row: Row) -> str:
    slowest = f" ({row.slowest_seconds:.0f}: `{_cut(row.slowest)}`)" if row.slowest else ""
    return f"{row.seconds:.0f}{slowest}"


def _onnx(row: Row) -> str:
    if not row.onnx:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in row.onnx.items())
    return f"{kinds}, error {row.worst_onnx:.2f}"


def _passes(rows: Iterable[Row]) -> list[str]:
    return sorted({name for row in rows for name in row.passes})


def _of(row: Row, name: str) -> PassCounts:
    return row.passes.get(name, PassCounts())


def _ranking(what: str, counts: Iterable[tuple[str, dict[str, int]]]) -> list[list[str]]:
    """Reasons with their places and models, the most frequent first."""
    places: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for _, reasons in counts:
        places.update(reasons)
        models.update(reasons.keys())
    ranked = sorted(places, key=lambda reason: (-places[reason], reason))
    return [[what, f"{places[reason]:,}", str(models[reason]), reason.replace("|", "\\|")] for reason in ranked]


def _reasons(what: str, rankings: Iterable[list[list[str]]]) -> str:
    lines = [_line(cells) for ranking in rankings for cells in ranking]
    head = [_line([what, "places", "models", "reason"]), "|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else "Nothing."


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
