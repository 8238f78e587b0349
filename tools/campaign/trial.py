"""One random model: mutations of every pass alone, and chains of them, each compared without gg.verify and by it."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.contract import Mutation
from graphgrow.verification.probes import cast
from tests.preserved import Observed, assert_preserved, assert_same_bits, assert_untouched, fingerprint
from tests.properties.written import Model
from tools.campaign.counts import LONG, Batch, Find

CHAINS = 8  # on one model
LENGTHS = (8, 8, 8, 9, 10, 12, 16, 32)
LOOK = (4, 8, 8, 40)  # sites of a pass that a step of a chain chooses among: finding all of them is most of its cost
LARGE = 5_000  # parameters above which chains end
OFTEN, SELDOM, RARE = 0.15, 0.06, 0.002  # how often sampled checks run; an export takes seconds
EVERYTHING = ("eval", "train", "lattice", "extremes", "gradients", "alive")

Mutations = Sequence[tuple[str, int]]


class Refused(Exception):
    """A mutation that was not offered as it is was declined."""


@dataclass
class Trial:
    """What is done with one model.

    Attributes:
        model: with its example inputs.
        graph: of it.
        draw: what chooses.
        batch: takes in the counts and the finds.
        exports: the share of what is verified that is exported as well.
        further: the share of mutations alone that are verified in all modes.
    """

    model: Model
    graph: Graph
    draw: random.Random
    batch: Batch
    exports: float = RARE
    further: float = SELDOM

    @classmethod
    def run(
        cls, model: Model, draw: random.Random, batch: Batch, exports: float = RARE, further: float = SELDOM
    ) -> None:
        """Everything on one model; what goes wrong is found, and the rest goes on."""
        graph = gg.trace(*model)
        trial, before = cls(model, graph, draw, batch, exports, further), fingerprint(graph.module)
        batch.counts["models"] += 1
        trial.alone()
        for _ in range(CHAINS):
            trial.chain(draw.choice(LENGTHS))
        assert_untouched(graph.module, before)

    def alone(self) -> None:
        """One mutation of each pass, half of them with other options than those that are offered."""
        seen = Observed(self.graph)
        for name in gg.pass_names():
            offered = self._offered(self.graph, name, [])
            if not offered:
                continue
            mutation = self.draw.choice(offered)
            if self.draw.random() < 0.5:
                mutation = mutation.varied(self.graph, self.draw)
            entry = (str(mutation), self.draw.randrange(100))
            child = self._step(self.graph, seen, [], entry, must=mutation in offered)
            if child is not None:
                modes = EVERYTHING if self.draw.random() < self.further else ("eval", "train")
                self._verify(self.graph, child[0], [entry], modes)
                self._sampled(child[0], [entry])

    def chain(self, length: int) -> None:
        """Mutations one after the other; each step is compared by outputs, the whole by gg.verify as well."""
        graph, seen, done = self.graph, Observed(self.graph), list[tuple[str, int]]()
        while len(done) < length and graph.parameter_count <= LARGE:
            mutation = self._choose(graph, done)
            if mutation is None:
                break
            entry = (str(mutation), self.draw.randrange(100))
            child = self._step(graph, seen, done, entry, must=True)
            if child is None:
                return
            graph, seen = child
            done.append(entry)
        if done:
            self._verify(self.graph, graph, done, ("eval", "train"))
            self._sampled(graph, done)
        self.batch.counts["chains" if len(done) >= LONG else "shorter chains"] += 1
        self.batch.lengths[len(done)] += 1

    def _offered(self, graph: Graph, name: str, done: Mutations, most: int | None = None) -> list[Mutation]:
        try:
            return list(islice(graph.mutations(name), most))
        except Exception as error:  # noqa: BLE001  # as for a step
            self._found(done, f"mutations({name!r}) fails: {type(error).__name__}: {error}")
            return []

    def _choose(self, graph: Graph, done: Mutations) -> Mutation | None:
        names = list(gg.pass_names())
        for name in self.draw.sample(names, len(names)):
            offered = self._offered(graph, name, done, self.draw.choice(LOOK))
            if offered:
                return self.draw.choice(offered)
        return None

    def _step(
        self, graph: Graph, seen: Observed, done: Mutations, entry: tuple[str, int], must: bool
    ) -> tuple[Graph, Observed] | None:
        """One mutation by its text, compared by outputs; None where it declines or went wrong."""
        text, seed = entry
        try:
            mutation = gg.parse_mutation(text)
            assert str(mutation) == text, "the text does not come back"
            child = gg.apply(graph, mutation, seed=seed)
            after = Observed(child)
            assert_preserved(graph, child, seed, seen=(seen, after))
        except (gg.Declined, gg.MutationError) as error:
            if not must:
                self.batch.counts["declined"] += 1
                return None
            self._found([*done, entry], f"offered, and declined: {error}")
            return None
        except Exception as error:  # noqa: BLE001  # whatever comes out is what is looked for
            self._found([*done, entry], f"{type(error).__name__}: {error}")
            return None
        self.batch.counts["rewrites"] += 1
        self.batch.passes[mutation.name] += 1
        return child, after

    def _verify(self, before: Graph, after: Graph, entries: Mutations, modes: tuple[str, ...]) -> None:
        try:
            verdict = gg.verify(before, after, modes=modes, batch_sizes=())
        except Exception as error:  # noqa: BLE001  # as above
            self._found(entries, f"gg.verify fails: {type(error).__name__}: {error}")
            return
        self.batch.counts["verdicts"] += 1
        self.batch.counts["verdicts in further modes"] += modes == EVERYTHING
        self.batch.counts["rewrites within verdicts"] += len(entries)
        self.batch.counts[{True: "preserved", False: "not preserved", None: "undetermined"}[verdict.preserved]] += 1
        if verdict.preserved is False:  # the outputs agree, or it would not have come here
            self._found(entries, f"gg.verify says no: {verdict}")

    def _sampled(self, graph: Graph, entries: Mutations) -> None:
        """Replay, save and load, and export, each on a sample."""
        kinds: list[tuple[str, float, Callable[[Graph], None]]] = [
            ("replayed to the bit", OFTEN, self._replayed),
            ("saved and loaded", SELDOM, self._saved),
            ("exported to ONNX with parity", self.exports, self._exported),
        ]
        for name, share, check in kinds:
            if self.draw.random() >= share:
                continue
            try:
                check(graph)
            except Exception as error:  # noqa: BLE001  # as above
                self._found(entries, f"not {name}: {type(error).__name__}: {error}")
            else:
                self.batch.counts[name] += 1

    def _replayed(self, graph: Graph) -> None:
        again = replay(self.graph, graph.ledger.entries)
        assert_same_bits(again.module, graph.module)
        assert again.text() == graph.text(), "another text"

    def _saved(self, graph: Graph) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gg.save(graph, Path(folder) / "saved")
            again = gg.load(Path(folder) / "saved", self.model.module)
        assert_same_bits(again.module, graph.module)

    def _exported(self, graph: Graph) -> None:
        """In float32: onnxruntime has no convolution in float64."""
        args, kwargs = graph.base_inputs.sample() if graph.base_inputs else graph.inputs.sample()
        args = pytree.tree_map(lambda leaf: cast(leaf, torch.float32), args)
        narrow = gg.trace(copy.deepcopy(self.model.module).float(), args, kwargs)
        with tempfile.TemporaryDirectory() as folder:
            gg.export_onnx(replay(narrow, graph.ledger.entries), Path(folder) / "model.onnx")

    def _found(self, entries: Mutations, what: str) -> None:
        self.batch.finds.append(Find(repr(self.model), tuple(entries), what))
        self.batch.counts["finds"] += 1
