"""Differentiable choice: sites are opened, architecture and weights trained in turns, and the winners become mutations.

What comes out is an ordinary grown graph, whose ledger names what was opened and what was left; so it can grow on, and
the sites that grew can be opened in the next round.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from graphgrow.bulk.clean import clean
from graphgrow.data.evaluation import Score, score
from graphgrow.data.parts import Data
from graphgrow.errors import NotPreserved, SearchError
from graphgrow.graph import Graph
from graphgrow.passes.mix_operators import MixOperators
from graphgrow.records import ChoiceRecord, RoundRecord
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.own import own
from graphgrow.rewrite.registry import pass_names
from graphgrow.search.alternation import Site, alternate, decided, sites_of
from graphgrow.search.evaluate import base, data_of
from graphgrow.search.job import stream, stream_seed
from graphgrow.search.recipe import Choosing
from graphgrow.search.training import train
from graphgrow.search.variation import draw_mutation
from graphgrow.verification.verify import verify


class ChoosingWatcher(Protocol):
    """Is told how a search comes along."""

    def trained(self, graph: Graph, found: Score) -> None:
        """The base is trained."""

    def opened(self, index: int, grown: Sequence[str], mixed: Sequence[str]) -> None:
        """A round begins: how the network grew, and which choices were opened."""

    def turned(self, step: int, sites: Sequence[Site]) -> None:
        """Some steps of the alternation were done."""

    def settled(self, record: RoundRecord) -> None:
        """A round has ended."""


class Quiet:
    """A watcher that says nothing."""

    def trained(self, graph: Graph, found: Score) -> None:
        """Say nothing."""

    def opened(self, index: int, grown: Sequence[str], mixed: Sequence[str]) -> None:
        """Say nothing."""

    def turned(self, step: int, sites: Sequence[Site]) -> None:
        """Say nothing."""

    def settled(self, record: RoundRecord) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Chosen:
    """What came of a search.

    Attributes:
        graph: the network at the end.
        before: validation score of the base.
        test: accuracy of the base on the test part.
        rounds: what happened.
    """

    graph: Graph
    before: Score
    test: float
    rounds: tuple[RoundRecord, ...]


def choose(recipe: Choosing, watch: ChoosingWatcher | None = None) -> Chosen:
    """Train a base, and choose its operators by gradient, in rounds.

    Args:
        recipe: what to do.
        watch: is told how it comes along.

    Raises:
        SearchError: if no site can be opened, or a loss is not finite.
        NotPreserved: if opening or settling changed the function, which is a defect.
    """
    watch = watch or Quiet()
    data = data_of(recipe.task.data)
    with torch.random.fork_rng(devices=[]):
        graph = own(base(recipe.task))
        train(graph, data, recipe.training, "steps", recipe.base, stream_seed(recipe.seed, "base"))
        before, test = score(graph.module, data.validation), score(graph.module, data.test).accuracy
        watch.trained(graph, before)
        rounds = []
        for index in range(recipe.rounds):
            graph, record = _round(graph, recipe, data, index, watch)
            rounds.append(record)
            watch.settled(record)
    return Chosen(graph, before, test, tuple(rounds))


def open_sites(graph: Graph, patterns: Sequence[str], choices: Sequence[str]) -> list[MixOperators]:
    """The mutations that open the sites of these names to these operators, or to all usual ones where none are named.

    Raises:
        SearchError: if there are none.
    """
    found = []
    for offered in graph.mutations("mix-operators"):
        if isinstance(offered, MixOperators) and any(fnmatch.fnmatch(offered.site, pattern) for pattern in patterns):
            fitting = tuple(name for name in offered.choices if not choices or name in choices)
            if fitting:
                found.append(dataclasses.replace(offered, choices=fitting))
    if not found:
        raise SearchError(f"no site named {', '.join(patterns)} offers one of the choices; see graph.mutations()")
    return found


def _round(graph: Graph, recipe: Choosing, data: Data, index: int, watch: ChoosingWatcher) -> tuple[Graph, RoundRecord]:
    start = time.perf_counter()
    seed = stream_seed(recipe.seed, "round", index)
    grown = _grown(graph, recipe, index) if index else graph
    mixing = open_sites(grown, recipe.sites, recipe.choices)
    opened = own(apply(grown, mixing, seed=seed % 2**31))
    _demand(graph, opened)
    growth = tuple(entry.mutation for entry in grown.ledger.entries[len(graph.ledger) :])
    watch.opened(index, growth, [str(mutation) for mutation in mixing])
    sites = sites_of(opened)
    stopped = None
    if recipe.decide == "alpha":
        stopped = alternate(opened, sites, data, recipe.training, recipe.alternation, seed, watch.turned)
        kept = decided(sites, recipe.alternation.most_free)
    else:
        draw = stream(recipe.seed, "random", index)
        kept = [draw.randrange(len(site.choice.names)) if recipe.decide == "random" else 0 for site in sites]
    strongest = [site.choice.names[site.leader] for site in sites]
    mixture = score(opened.module, data.validation)
    for site, place in zip(sites, kept, strict=True):
        site.choice.close(place)
    closed = score(opened.module, data.validation)
    settled = _settled(opened)
    steps = recipe.finish + (0 if recipe.decide == "alpha" else recipe.alternation.steps)
    train(settled, data, recipe.training, "steps", steps, stream_seed(recipe.seed, "finish", index))
    return settled, RoundRecord(
        index=index,
        grown=growth,
        choices=tuple(
            ChoiceRecord(
                site=site.name,
                names=site.choice.names,
                steps=tuple(site.steps),
                shares=tuple(site.shares),
                strongest=strong,
                kept=site.choice.names[place],
            )
            for site, place, strong in zip(sites, kept, strongest, strict=True)
        ),
        preserved=True,
        loss_open=mixture.loss,
        loss_closed=closed.loss,
        accuracy_open=mixture.accuracy,
        accuracy_closed=closed.accuracy,
        accuracy=score(settled.module, data.validation).accuracy,
        test=score(settled.module, data.test).accuracy,
        guarded_at=stopped,
        parameters=settled.parameter_count,
        flops=settled.flops,
        seconds=time.perf_counter() - start,
    )


def _grown(graph: Graph, recipe: Choosing, index: int) -> Graph:
    """The graph with one random mutation of each pass that the recipe names."""
    draw = stream(recipe.seed, "grow", index)
    for name in recipe.grow:
        rates = {other: float(other == name) for other in {*pass_names(), name}}
        mutation = draw_mutation(graph, draw, rates)
        if mutation is None:
            raise SearchError(f"{name} offers no mutation in round {index}; leave it out of `grow`")
        graph = apply(graph, mutation, seed=draw.getrandbits(31))
    return graph


def _settled(graph: Graph) -> Graph:
    """The graph without what was not chosen, over tensors of its own; proven to compute the same."""
    settled = apply(graph, list(graph.mutations("settle-operators")))
    _demand(graph, settled)
    cleaned = clean(settled)
    _demand(settled, cleaned)
    return own(cleaned)


def _demand(before: Graph, after: Graph) -> None:
    """Refuse to go on with another function; where all is zero behind a site that became nothing, none can be told."""
    verdict = verify(before, after, batch_sizes=(1,))
    if verdict.preserved is False:
        raise NotPreserved(f"{', '.join(e.mutation for e in after.ledger.entries[len(before.ledger) :])}: {verdict}")
