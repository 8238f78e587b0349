"""Growing inside any training loop: observe, propose, apply."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from graphgrow.errors import NotPreserved, SignalError, TrainingError
from graphgrow.graph import Graph
from graphgrow.network.network import require_network
from graphgrow.records import DecisionRecord
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.optimizer import Migration
from graphgrow.signals.watch import Watch
from graphgrow.train.averaging import follow_growth
from graphgrow.train.budget import Budget
from graphgrow.train.measuring import Loss, Measuring
from graphgrow.train.newness import drawn_entries, newness
from graphgrow.train.pace import Newcomers, Pace
from graphgrow.train.policy import GrowthPolicy, make_policy
from graphgrow.train.proposal import Nothing, Proposal, choose
from graphgrow.train.ranks import Ranks
from graphgrow.train.schedule import Plateau, Schedule
from graphgrow.train.snapshot import Snapshot
from graphgrow.train.start import distance, output_of
from graphgrow.train.trial import Trial


class Grower:
    """Lets a network grow while a loop of the user's own trains it.

        grower = Grower(graph, optimizer, "dnm", budget=Budget(parameters=100_000))
        for epoch in range(epochs):
            for x, y in batches:
                optimizer.zero_grad()
                with grower.observe():
                    F.cross_entropy(grower.module(x), y).backward()
                optimizer.step()
            if proposal := grower.propose(validation_loss(grower.module)):
                grower.apply(proposal)

    Optimizer, learning-rate schedulers and gradient scalers stay the same objects; so does an averaged model.

    Where several processes train together (torch.distributed, one network in each), call `grower.parallel(x)` in the
    training step, and all else in every process: the first process measures and decides, all grow alike, and a growth
    after which parameters or optimizer states differ between them is refused.

    Args:
        graph: to grow; train `grower.module`, which is another module after each growth.
        optimizer: over the graph's parameters, carried over in place.
        policy: or its name; see `policies()`.
        budget: upper limits of the grown network; where they refuse all that the policy wants, it asks no more.
        when: the schedule; by default a plateau of the metric given to `propose`.
        cool_down: rounds after a growth in which nothing is asked.
        most_stages: growths in all.
        averaged: an AveragedModel of the graph's module, grown along.
        pace: of the updates of what is new; by default `Pace.under(optimizer)`.
        every: of so many batches one is observed.
        held_out: `module -> loss` on data that is not trained on; connections must lower it to first order.
        rollback_after: rounds after which a growth is taken back if the metric is not below what it was; None never.
        rollback_margin: by which share of what it was the metric may be above and the growth stays all the same; below
            0, by which it has to have fallen.
        verify: whether each growth is verified before the optimizer is touched; the trainer does that in its stages.
        seed: of fresh weights, of samples that signals draw, and of what policies draw.

    Raises:
        OptimizerError: if it is not known what the optimizer keeps (`gg.register_optimizer` says it), or it trains
            nothing of the graph.
        TrainingError: if there is no such policy, or `every` is less than 1.

    Attributes:
        graph: the newest.
        decisions: one record for each time it was time.
        stage: growths so far.
        going_back: is called before a growth is taken back, while the grown network is still what it was.
    """

    def __init__(
        self,
        graph: Graph,
        optimizer: Optimizer | None = None,
        policy: GrowthPolicy | str = "dnm",
        *,
        budget: Budget | None = None,
        when: Schedule | None = None,
        cool_down: int = 0,
        most_stages: int | None = None,
        averaged: AveragedModel | None = None,
        pace: Pace | None = None,
        every: int = 20,
        held_out: Loss | None = None,
        rollback_after: int | None = None,
        rollback_margin: float = 0.0,
        verify: bool = True,
        seed: int = 0,
    ) -> None:
        require_network(graph, "gg.Grower")
        if every < 1:
            raise TrainingError(f"every={every}: one of so many batches is observed, of 1 at least")
        if optimizer is not None:
            Migration(optimizer).require_any(graph.module.parameters())  # refused now rather than at the first growth
        self.graph = graph
        self.policy = make_policy(policy)
        self.decisions: list[DecisionRecord] = []
        self.stage = 0
        self.going_back: Callable[[], object] = lambda: None
        self._optimizer = optimizer
        self._budget = budget or Budget()
        self._when = when or Plateau()
        self._cool_down = cool_down
        self._most_stages = most_stages
        self._averaged = averaged
        self._newcomers = None if optimizer is None else Newcomers(optimizer, pace or Pace.under(optimizer))
        self._every = every
        self._measuring = Measuring(self.policy, held_out, seed)
        self._trial = Trial(rollback_after, rollback_margin)
        self._verify = verify
        self._seed = seed
        self._round = 0
        self._batch = 0
        self._metrics: list[float | None] = []
        self._full = False
        self._ranks = Ranks.present()
        self._parallel: tuple[nn.Module, nn.Module] | None = None

    @property
    def module(self) -> fx.GraphModule:
        """The newest network: an ordinary nn.Module."""
        return self.graph.module

    @property
    def parallel(self) -> nn.Module:
        """What to call in a training step of several processes: the newest network, its gradients averaged over them.

        A DistributedDataParallel, another one after each growth; the network itself where one process is alone.
        """
        if self._ranks.count == 1:
            return self.module
        if self._parallel is None or self._parallel[0] is not self.module:
            self._parallel = None  # its hooks on shared parameters go first
            self._parallel = self.module, DistributedDataParallel(self.module)
        return self._parallel[1]

    @property
    def will_observe(self) -> bool:
        """Whether the next batch is one that is observed: a compiled module is not, so call `module` itself then."""
        return self._batch % self._every == 0 and not self._finished

    @contextlib.contextmanager
    def observe(self) -> Iterator[None]:
        """Around forward and backward pass of one batch; most batches are left alone.

        Raises:
            TrainingError: before the first batch, if the policy was told to do something that cannot be done.
        """
        self._require_policy()
        watched = self.will_observe
        self._batch += 1
        if not (watched and self._ranks.first):
            yield
            return
        with Watch(self.module, self._measuring.signals(self.graph, self._round).values()):
            yield

    @property
    def undecided(self) -> bool:
        """Whether the last growth may still be taken back."""
        return self._trial.undecided

    def propose(self, metric: float | None = None, only_back: bool = False) -> Proposal | None:
        """At the end of a round (an epoch, say): what to do now, if it is time and anything is to be done.

        What is decided, and on which numbers, is recorded in `decisions`.

        Args:
            metric: the lower the better, a validation loss say; a plateau and a rollback need it.
            only_back: whether to grow no more, and decide alone whether the last growth is taken back.

        Raises:
            TrainingError: if the schedule needs a metric and none is given; as `observe` does, in the first round.
        """
        self._require_policy()
        metric = self._ranks.decided(lambda: metric)
        self._round += 1
        self._metrics.append(metric)
        if self._roll_back() or only_back or self._finished or len(self._metrics) <= self._cool_down:
            return None
        reason = self._when.due(self._metrics)
        if reason is None:
            self._measuring.forget()
            return None
        found = self._ranks.decided(lambda: self._decide(reason))
        self._measuring.forget()
        if isinstance(found, Proposal):
            return found
        self._full = found.full
        last = "; it asks no more" if found.full else ""
        self._record("declined", f"{reason}, but {found.reason}{last}", found.considered, {}, self.graph, self.graph)
        self._metrics = []
        return None

    def apply(self, proposal: Proposal) -> Graph:
        """Carry a proposal out; the optimizer and the average go along.

        Raises:
            NotPreserved: if the child computes another function; nothing has changed then.
            Declined, OptimizerError: as `gg.apply` does; likewise.
        """
        start = self.start(proposal)
        child = apply(self.graph, proposal.mutations, seed=self.seed_of_stage)
        if self._verify:
            self._ranks.decided(lambda: self._require_preserved(proposal, child))
        start(child)
        self.prepare()
        if self._optimizer is not None:
            child = apply(self.graph, proposal.mutations, seed=self.seed_of_stage, optimizer=self._optimizer)
            start(child)
        self.follow(child, proposal)
        return child

    @property
    def seed_of_stage(self) -> int:
        """Of the fresh weights of the next growth."""
        return self._seed

    def start(self, proposal: Proposal) -> Callable[[Graph], None]:
        """What sets, in a child that was made with `seed_of_stage` and verified, how what is new starts.

        Here the function stays what it is, which is looked at; `follow` makes the starts that change it.

        Raises:
            NotPreserved: by what it returns, if the child's outputs moved.
        """
        starts = [one.start for one in proposal.candidates if one.start.preserving and one.start.kind != "fresh"]
        if not starts:
            return lambda _: None
        new = newness(self.graph, proposal.mutations, self.seed_of_stage).entries
        drawn = drawn_entries(self.graph, proposal.mutations, self.seed_of_stage, new)

        rounding = max(torch.finfo(one.dtype).eps for one in self.module.parameters() if one.is_floating_point())

        def begin(child: Graph) -> None:
            before = output_of(child)
            for one in starts:
                one.prepare(child, new, drawn)
            moved = distance(before, output_of(child))
            if not moved <= rounding**0.5:
                raise NotPreserved(f"{proposal}: the start of what is new moved the outputs by {moved:.1%}")

        return begin

    def prepare(self) -> None:
        """Before the optimizer is carried over by other means than `apply`: keep what a rollback needs."""
        if self._trial.wanted:
            self._trial.begin(Snapshot.of(self.graph, self._optimizer, self._averaged), self._metrics)

    def follow(self, child: Graph, proposal: Proposal) -> None:
        """Take up a child that was made of a proposal's mutations with `seed_of_stage`, the optimizer with it.

        `start` was called on it. Starts that do not preserve the function are made now, and their gap is measured.
        """
        parent = self.graph
        new = newness(parent, proposal.mutations, self.seed_of_stage)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._round + 500_000)
        numbers = dict(proposal.numbers)
        for candidate in proposal.candidates:
            gap = candidate.start.disturb(parent, child, new.entries, generator)
            if gap is not None:
                numbers["gap"] = gap
        if self._averaged is not None:
            follow_growth(self._averaged, parent, child)
        if self._newcomers is not None:
            self._newcomers.welcome(child.module, new.paces)
        self._record("grown", proposal.reason, proposal.mutations, numbers, parent, child)
        self.graph, self._metrics = child, []
        self._measuring.forget()
        self.stage += 1
        self._ranks.require_equal(child.module.parameters(), "the parameters")
        if self._optimizer is not None:
            self._ranks.require_equal(_states(self._optimizer), "the optimizer's states")

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the graph; plain values and tensors."""
        return {
            "round": self._round,
            "batch": self._batch,
            "stage": self.stage,
            "metrics": list(self._metrics),
            "decisions": [decision.to_json() for decision in self.decisions],
            "newcomers": None if self._newcomers is None else self._newcomers.state(),
            "signals": self._measuring.state(),
            "before": self._trial.state(),
            "full": self._full,
        }

    def restore(self, graph: Graph, state: Mapping[str, Any], base: Graph) -> None:
        """Go on from a state.

        Args:
            graph: that belongs to it.
            state: as `state` gave it.
            base: that the graph grew from, of which one that may be gone back to is built anew.
        """
        self._trial.restore(state["before"], base)
        self.graph = graph
        self._round, self._batch, self.stage = state["round"], state["batch"], state["stage"]
        self._metrics, self._full = list(state["metrics"]), state["full"]
        self.decisions = [DecisionRecord.from_json(item) for item in state["decisions"]]
        if self._newcomers is not None and state["newcomers"] is not None:
            self._newcomers.restore(graph.module, state["newcomers"])
        self._measuring.restore(graph, self._round, state["signals"])

    # -- deciding ----------------------------------------------------------------------------------------------

    @property
    def _finished(self) -> bool:
        return self._full or (self._most_stages is not None and self.stage >= self._most_stages)

    def _require_policy(self) -> None:
        """Before anything is trained, that the policy can do what it was told to."""
        if self._round == self._batch == 0:
            self.policy.require(self.graph)

    def _require_preserved(self, proposal: Proposal, child: Graph) -> None:
        from graphgrow.verification.verify import verify

        verdict = verify(self.graph, child, seed=self._seed)
        if verdict.preserved is not True:
            raise NotPreserved(f"{proposal}: {verdict}")

    def _decide(self, reason: str) -> Proposal | Nothing:
        try:
            evidence = self._measuring.evidence(self.graph, self._round - 1, self.stage)
        except SignalError as error:
            return Nothing(str(error))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._round)
        candidates = self.policy.candidates(self.graph, evidence, generator)
        return choose(self.graph, candidates, self.policy, self._budget, reason, self.seed_of_stage)

    def _roll_back(self) -> bool:
        """Take the last growth back if it has not paid in time."""
        failure = self._trial.failure(self._metrics)
        if failure is None:
            return False
        self.going_back()
        grown, self.graph = self.graph, failure.before.restore(self._optimizer, self._averaged)
        self._full = False  # the smaller network has room again
        self._metrics = []
        self._measuring.forget()
        if self._newcomers is not None:
            self._newcomers.welcome(self.graph.module, {})
        entries = grown.ledger.after(self.graph.ledger) or ()
        mutations = tuple(entry.mutation for entry in entries)
        self._record("rolled back", failure.reason, mutations, failure.numbers, grown, self.graph)
        return True

    def _record(
        self,
        verdict: str,
        reason: str,
        mutations: tuple[str, ...],
        numbers: Mapping[str, float],
        before: Graph,
        after: Graph,
    ) -> None:
        self.decisions.append(
            DecisionRecord(
                round=self._round - 1,
                policy=self.policy.name,
                verdict=verdict,
                reason=reason,
                mutations=mutations,
                numbers=dict(numbers),
                parameters_before=before.parameter_count,
                parameters_after=after.parameter_count,
                flops_before=before.flops,
                flops_after=after.flops,
            )
        )


def _states(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            items = optimizer.state.get(parameter, {})
            yield from (items[name] for name in sorted(items) if isinstance(items[name], torch.Tensor))
