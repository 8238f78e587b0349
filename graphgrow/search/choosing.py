"""Differentiable choice: sites are opened, architecture and weights trained in turns, and the winners become mutations.

What comes out is an ordinary grown graph, whose ledger names what was opened and what was left; so it can grow on, and
the sites that grew can be opened in the next round. In a folder a run leaves checkpoints, and goes on from the newest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from graphgrow.bulk.clean import clean
from graphgrow.data.evaluation import Score, score
from graphgrow.errors import NotPreserved, SearchError
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.network.own import own
from graphgrow.passes.mix_operators import MixOperators
from graphgrow.records import ChoiceRecord, RoundRecord
from graphgrow.rewrite.apply import apply, replay
from graphgrow.rewrite.registry import pass_names
from graphgrow.search.alternation import Site, alternate, decided, sites_of
from graphgrow.search.evaluate import base, data_of
from graphgrow.search.job import stream, stream_seed
from graphgrow.search.progress import Progress
from graphgrow.search.recipe import Choosing
from graphgrow.search.training import train
from graphgrow.search.variation import draw_mutation
from graphgrow.store.lock import locked
from graphgrow.store.tensors import install, unique_tensors
from graphgrow.train.checkpoint import newest_checkpoint, recipe_text, refuse_another, write_checkpoint
from graphgrow.train.reproducible import reproducible
from graphgrow.verification.verify import verify

CHECKPOINTS = "checkpoints"


class ChoosingWatcher(Protocol):
    """Is told how a search comes along."""

    def resumed(self, index: int, steps: int, notes: Sequence[str]) -> None:
        """A search goes on, in this round (-1 trains the base) behind so many steps; some checkpoints are damaged."""

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

    def resumed(self, index: int, steps: int, notes: Sequence[str]) -> None:
        """Say nothing."""

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


def choose(
    recipe: Choosing, watch: ChoosingWatcher | None = None, folder: str | os.PathLike[str] | None = None
) -> Chosen:
    """Train a base, and choose its operators by gradient, in rounds; go on where an earlier call in the folder stopped.

    Killed at any moment and called again, it ends with the same weights, to the bit, as in one go (with one thread).

    Args:
        recipe: what to do.
        watch: is told how it comes along.
        folder: receives `checkpoints/`; None keeps none.

    Raises:
        FolderError: if another process searches in the folder.
        SearchError: if no site can be opened, or a loss is not finite.
        TrainingError: if the folder holds the checkpoints of another recipe, or one cannot be written.
        NotPreserved: if opening or settling changed the function, which is a defect.
    """
    with reproducible(recipe.seed):
        run = _Run(recipe, watch or Quiet(), None if folder is None else Path(folder))
        with contextlib.nullcontext() if folder is None else locked(folder):
            return run.run()


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


@dataclass
class _Moment:
    """What a run has come to, its network and the place within a loop of steps aside.

    Attributes:
        before: validation score of the base; None until it is trained.
        test: accuracy of the base on the test part.
        rounds: that have ended.
        grown: how the network grew before the choices of the present round; None until these are open.
        settled: the record of the present round without what comes behind its choices; None until these are made.
        seconds: spent in the present round.
    """

    before: Score | None = None
    test: float = 0.0
    rounds: tuple[RoundRecord, ...] = ()
    grown: tuple[str, ...] | None = None
    settled: RoundRecord | None = None
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "before": self.before and dataclasses.astuple(self.before),
            "test": self.test,
            "rounds": [record.to_json() for record in self.rounds],
            "grown": self.grown,
            "settled": self.settled and self.settled.to_json(),
            "seconds": self.seconds,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> _Moment:
        """What `plain` gave."""
        return cls(
            before=plain["before"] and Score(*plain["before"]),
            test=plain["test"],
            rounds=tuple(RoundRecord.from_json(record) for record in plain["rounds"]),
            grown=plain["grown"],
            settled=plain["settled"] and RoundRecord.from_json(plain["settled"]),
            seconds=plain["seconds"],
        )


class _Run:
    """One search; everything that changes is restored from a checkpoint.

    Attributes:
        graph: as far as it has come.
        now: what else there is to go on from.
        place: in the loop of steps that was interrupted.
        saved: checkpoints so far.
    """

    def __init__(self, recipe: Choosing, watch: ChoosingWatcher, folder: Path | None) -> None:
        self.recipe, self.watch, self.folder = recipe, watch, folder
        self.data = data_of(recipe.task.data)
        self.graph = own(base(recipe.task))
        self.now = _Moment()
        self.place: dict[str, Any] | None = None
        self.saved = 0
        self.clock = time.perf_counter()

    def run(self) -> Chosen:
        """From the newest checkpoint, or the beginning, to the end."""
        self._resume()
        if self.now.before is None:
            self._train(self.recipe.base, stream_seed(self.recipe.seed, "base"))
            test = score(self.graph.module, self.data.test).accuracy
            before = score(self.graph.module, self.data.validation)
            self._come_to(_Moment(before, test))
            self.watch.trained(self.graph, before)
        while len(self.now.rounds) < self.recipe.rounds:
            record = self._round(len(self.now.rounds))
            self._come_to(_Moment(self.now.before, self.now.test, (*self.now.rounds, record)))
            self.watch.settled(record)
        assert self.now.before is not None
        return Chosen(self.graph, self.now.before, self.now.test, self.now.rounds)

    # -- rounds ------------------------------------------------------------------------------------------------

    def _round(self, index: int) -> RoundRecord:
        recipe, seed = self.recipe, stream_seed(self.recipe.seed, "round", index)
        if self.now.settled is None:
            if self.now.grown is None:
                self.graph, self.now.grown = self._opened(index, seed)
            self.graph, self.now.settled = self._chosen(index, seed, self.now.grown)
            self._checkpoint()
        steps = recipe.finish + (0 if recipe.decide == "alpha" else recipe.alternation.steps)
        self._train(steps, stream_seed(recipe.seed, "finish", index))
        return dataclasses.replace(
            self.now.settled,
            accuracy=score(self.graph.module, self.data.validation).accuracy,
            test=score(self.graph.module, self.data.test).accuracy,
            seconds=self._spent(),
        )

    def _opened(self, index: int, seed: int) -> tuple[Graph, tuple[str, ...]]:
        """The network, grown and with its choices open, and how it grew."""
        grown = _grown(self.graph, self.recipe, index) if index else self.graph
        mixing = open_sites(grown, self.recipe.sites, self.recipe.choices)
        opened = own(apply(grown, mixing, seed=seed % 2**31))
        _demand(self.graph, opened)
        growth = tuple(entry.mutation for entry in grown.ledger.entries[len(self.graph.ledger) :])
        self.watch.opened(index, growth, [str(mutation) for mutation in mixing])
        return opened, growth

    def _chosen(self, index: int, seed: int, growth: tuple[str, ...]) -> tuple[Graph, RoundRecord]:
        """The network without what was not chosen, and what is known of the round by then."""
        recipe, opened, validation = self.recipe, self.graph, self.data.validation
        sites = sites_of(opened)
        stopped = None
        if recipe.decide == "alpha":
            turns, progress = recipe.alternation, self._progress()
            stopped = alternate(opened, sites, self.data, recipe.training, turns, seed, self.watch.turned, progress)
            kept = decided(sites, turns.most_free)
        else:
            draw = stream(recipe.seed, "random", index)
            kept = [draw.randrange(len(site.choice.names)) if recipe.decide == "random" else 0 for site in sites]
        strongest = [site.choice.names[site.leader] for site in sites]
        mixture = score(opened.module, validation)
        for site, place in zip(sites, kept, strict=True):
            site.choice.close(place)
        closed = score(opened.module, validation)
        settled = _settled(opened)
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
            accuracy=closed.accuracy,
            test=0.0,
            guarded_at=stopped,
            parameters=settled.parameter_count,
            flops=settled.flops,
            seconds=0.0,
        )

    def _train(self, steps: int, seed: int) -> None:
        train(self.graph, self.data, self.recipe.training, "steps", steps, seed, self._progress())

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _progress(self) -> Progress:
        """Of the loop that begins now, or goes on."""
        found, self.place = self.place, None
        return Progress(self._checkpoint, self.recipe.save_every, found)

    def _come_to(self, now: _Moment) -> None:
        """The base, or a round, is done."""
        self.now, self.clock = now, time.perf_counter()
        self._checkpoint()

    def _checkpoint(self, place: dict[str, Any] | None = None) -> None:
        if self.folder is None:
            return
        state = {
            "recipe": recipe_text(self.recipe),
            "ledger": self.graph.ledger.to_json(),
            "tensors": unique_tensors(self.graph.module),
            "now": dataclasses.replace(self.now, seconds=self._spent()).plain(),
            "place": place,
        }
        self.saved += 1
        write_checkpoint(self.folder / CHECKPOINTS, self.saved, state)

    def _resume(self) -> None:
        found = None if self.folder is None else newest_checkpoint(self.folder / CHECKPOINTS)
        if self.folder is None or found is None:
            return
        state: Any = found.state
        refuse_another(self.folder, state["recipe"], self.recipe, "search")
        graph = replay(self.graph, Ledger.from_json(state["ledger"]))
        install(str(self.folder / CHECKPOINTS), graph.module, state["tensors"])
        self.graph = dataclasses.replace(graph)  # without what was found out about the tensors it had
        self.graph.module.eval()  # as it is between the loops
        self.now, self.place, self.saved = _Moment.from_plain(state["now"]), state["place"], found.number
        index = -1 if self.now.before is None else len(self.now.rounds)
        self.watch.resumed(index, self.place["steps"] if self.place else 0, found.notes)
        self.clock = time.perf_counter()

    def _spent(self) -> float:
        """Seconds in the present round, in all calls together."""
        return self.now.seconds + time.perf_counter() - self.clock


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
