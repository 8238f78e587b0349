"""Every pass on its own: what it offers, what it declines, and whether what it does preserves the function."""

from __future__ import annotations

import gc
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import zip_longest
from pathlib import Path

import graphgrow as gg
from tools.sweep.journal import Journal
from tools.sweep.options import Options
from tools.sweep.outcome import DEFECTS, Outcome, attempt, compared, one_line, raised
from tools.sweep.subject import Subject

_QUOTED = re.compile(r"`[^`]*`")
_SHAPE = re.compile(r"[(\[]\d+(, ?\d+)*,?[)\]]")
_LARGE = re.compile(r"(?<![\w.])\d{2,}(?![\w.])")


Turn = tuple[str, gg.Mutation]  # a pass by name, and one of its mutations


def list_rounds(subject: Subject, options: Options, journal: Journal) -> list[list[Turn]]:
    """What is tried, in rounds in which each pass has one turn: a row that is stopped early has seen each of them."""
    names = gg.pass_names() if "all" in options.passes else options.passes
    sampled = {name: _sampled(subject, name, options, journal) for name in names}
    columns = zip_longest(*([(name, mutation) for mutation in found] for name, found in sampled.items()))
    return [[turn for turn in turns if turn is not None] for turns in columns]


def try_round(subject: Subject, turns: Iterable[Turn], options: Options, journal: Journal) -> None:
    """Apply and verify, each mutation by itself."""
    for pass_name, mutation in turns:
        journal.begin(str(mutation))
        outcome = attempt(partial(_tried, subject.graph, mutation, options))
        journal.end("mutation", of=pass_name, **vars(outcome))
        gc.collect()  # graph modules hold circles


def try_exports(subject: Subject, rounds: Iterable[Iterable[Turn]], options: Options, journal: Journal) -> None:
    """Export a sample of what is tried."""
    tried = [mutation for turns in rounds for _, mutation in turns]
    chance = random.Random(f"{options.seed}:onnx")
    for mutation in chance.sample(tried, min(options.onnx, len(tried))):
        journal.begin(f"ONNX of {mutation}")
        outcome = attempt(partial(_exported, subject.graph, mutation, options))
        journal.end("onnx", **vars(outcome))


def _sampled(subject: Subject, pass_name: str, options: Options, journal: Journal) -> list[gg.Mutation]:
    """The mutations of one pass that are tried, in the order of the sites."""
    journal.begin(f"sites of {pass_name}")
    try:
        offered = subject.graph.mutations(pass_name)
        mutations, refusals = list(offered), offered.refusals
    except DEFECTS as error:
        journal.end("pass", of=pass_name, offered=0, refusals={}, **vars(raised(error)))
        return []
    counts = Counter(general(refusal.reason, refusal.site) for refusal in refusals)
    journal.end("pass", of=pass_name, offered=len(mutations), refusals=dict(counts))
    if not options.sites or len(mutations) <= options.sites:
        return mutations
    # A chance of its own for each pass: a new pass does not change what is drawn of the others.
    places = random.Random(f"{options.seed}:{pass_name}").sample(range(len(mutations)), options.sites)
    return [mutations[place] for place in sorted(places)]


def general(reason: str, site: str) -> str:
    """A reason without names, shapes and large numbers, so that equal reasons are counted together."""
    text = _QUOTED.sub("`…`", reason.replace(f"`{site}`", "`…`"))
    text = re.sub(rf"(?<![\w.]){re.escape(site)}(?![\w.:])", "`…`", text) if site else text
    return one_line(_LARGE.sub("N", _SHAPE.sub("(…)", text)).replace(" (at `…`)", ""))


def _tried(graph: gg.Graph, mutation: gg.Mutation, options: Options) -> Outcome:
    return compared(graph, gg.apply(graph, mutation, seed=options.seed), options.batch_sizes, options.seed)


def _exported(graph: gg.Graph, mutation: gg.Mutation, options: Options) -> Outcome:
    return exported(graph, gg.apply(graph, mutation, seed=options.seed))


def exported(base: gg.Graph, grown: gg.Graph) -> Outcome:
    """Whether onnxruntime computes what torch does; where the export fails, whether the base's fails as well."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = gg.export_onnx(grown, Path(folder) / "grown.onnx")
        except gg.ExportError as error:
            try:
                gg.export_onnx(base, Path(folder) / "base.onnx")
            except gg.ExportError as own:
                return Outcome("refused", f"the base model as well: {one_line(str(own))}")
            return Outcome("wrong", one_line(str(error)))
    return Outcome("parity", "", record.max_error / record.bound if record.bound else 0.0)
