"""A chain of random mutations over all passes: verified, replayed, saved and loaded, exported."""

from __future__ import annotations

import dataclasses
import gc
import random
import tempfile
import typing
from functools import partial

import torch

import graphgrow as gg
from tools.sweep.journal import Journal
from tools.sweep.options import Options
from tools.sweep.outcome import DEFECTS, Outcome, attempt, compared, one_line, raised
from tools.sweep.singles import exported
from tools.sweep.subject import Subject

SITES = 3  # of a pass are applied for each step; the smallest result is kept


def try_chain(subject: Subject, options: Options, journal: Journal) -> None:
    """Grow a chain, and see what it is worth as a whole."""
    if not options.chain:
        return
    graph, grown = subject.graph, _grown(subject.graph, options, journal)
    growth = grown.parameter_count / max(graph.parameter_count, 1)
    journal.note("chain", part="length", length=len(grown.ledger), growth=growth)
    if not len(grown.ledger):
        return
    parts = {
        "whole": partial(compared, graph, grown, options.batch_sizes, options.seed),
        "replay": partial(_replayed, subject, grown),
        "load": partial(_loaded, subject, grown),
        "onnx": partial(exported, graph, grown),
    }
    for part, trial in parts.items():
        journal.begin(f"chain, {part}")
        journal.end("chain", part=part, **vars(attempt(trial)))
        gc.collect()


def _grown(graph: gg.Graph, options: Options, journal: Journal) -> gg.Graph:
    chance, current = random.Random(f"{options.seed}:chain"), graph
    limit = options.growth * graph.parameter_count
    while len(current.ledger) < options.chain:
        journal.begin(f"chain, drawing step {len(current.ledger) + 1}")
        found = _next(current, limit, chance, journal)
        journal.end("drawn")
        if found is None:
            break
        text = found.ledger.entries[-1].mutation
        journal.begin(f"chain, step {len(found.ledger)}: {text}")
        if options.chain_verify == "every":
            outcome = attempt(partial(compared, current, found, options.batch_sizes, options.seed))
            journal.end("chain", part="step", **vars(outcome))
        current = found
        gc.collect()
    return current


def _next(current: gg.Graph, limit: float, chance: random.Random, journal: Journal) -> gg.Graph | None:
    """One mutation further, the pass and the sites drawn by chance; None where nothing stays below the limit.

    Half of the steps begin with the smallest form of each mutation: whole splits and half as many units again would
    soon outgrow the memory.
    """
    names = list(gg.pass_names())
    chance.shuffle(names)
    for name in names:
        try:
            offered = list(current.mutations(name))
        except DEFECTS as error:
            journal.note("chain", part="step", label=f"sites of {name}", **vars(raised(error)))
            continue
        mutations = chance.sample(offered, min(SITES, len(offered)))
        for least in (True,) if chance.random() < 0.5 else (False, True):
            best: gg.Graph | None = None
            for mutation in mutations:
                grown = _applied(current, mutation, least, chance.randrange(2**31), journal)
                if grown is not None and (best is None or grown.parameter_count < best.parameter_count):
                    best = grown
            if best is not None and best.parameter_count <= limit:
                return best
    return None


def _applied(current: gg.Graph, mutation: gg.Mutation, least: bool, seed: int, journal: Journal) -> gg.Graph | None:
    """The graph grown by a mutation, or by its smallest form where there is one that applies."""
    for form in dict.fromkeys((smallest(mutation), mutation) if least else (mutation,)):
        try:
            return gg.apply(current, form, seed=seed)
        except (gg.Declined, gg.MutationError) as error:
            if form == mutation:  # a smaller form was never offered
                outcome = Outcome("declined", f"offered but declined: {one_line(str(error))}")
                journal.note("chain", part="step", label=str(form), **vars(outcome))
        except DEFECTS as error:
            journal.note("chain", part="step", label=str(form), **vars(raised(error)))
    return None


def smallest(mutation: gg.Mutation) -> gg.Mutation:
    """A mutation with each whole number among its options at one, and each empty list of numbers naming the first.

    Known by the types of the options alone, so that it holds for passes to come; where it makes no sense for a pass,
    apply says so.
    """
    _, *options = dataclasses.fields(mutation)
    hints = typing.get_type_hints(type(mutation))
    smaller: dict[str, object] = {}
    for field in options:
        value = getattr(mutation, field.name)
        if hints[field.name] is int and value > 1 and field.default is dataclasses.MISSING:
            smaller[field.name] = 1
        elif hints[field.name] == tuple[int, ...] and value == ():
            smaller[field.name] = (0,)
    return dataclasses.replace(mutation, **smaller)


def _replayed(subject: Subject, grown: gg.Graph) -> Outcome:
    """Base and ledger alone, the ledger by way of its text."""
    ledger = gg.Ledger.from_json(grown.ledger.to_json())
    return same_bits(grown, gg.replay(subject.model, subject.args, ledger, dict(subject.kwargs)))


def _loaded(subject: Subject, grown: gg.Graph) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        gg.save(grown, folder)
        return same_bits(grown, gg.load(folder, None if subject.known else subject.model))


def same_bits(one: gg.Graph, other: gg.Graph) -> Outcome:
    """Whether two graphs are one in structure and in every bit of every tensor."""
    if one.text() != other.text():
        return Outcome("wrong", "the graphs' texts differ")
    first, second = (dict([*g.module.named_parameters(), *g.module.named_buffers()]) for g in (one, other))
    if first.keys() != second.keys():
        return Outcome("wrong", f"other tensors: {', '.join(sorted(first.keys() ^ second.keys())[:5])}")
    differing = [name for name, tensor in first.items() if not _equal(tensor, second[name])]
    if differing:
        return Outcome("wrong", f"{len(differing)} tensors differ, `{differing[0]}` first")
    return Outcome("same")


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    first, second = (t.detach().cpu().contiguous().flatten().view(torch.uint8) for t in (a, b))
    return torch.equal(first, second)
