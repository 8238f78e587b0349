"""What a policy's signals see of the batches, from one round to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphgrow.graph import Graph
from graphgrow.signals.memory import memory_of, remember
from graphgrow.signals.skips import SkipSignal
from graphgrow.signals.watch import Signal, Watch
from graphgrow.train.policy import Evidence, GrowthPolicy

Loss = Callable[[torch.nn.Module], torch.Tensor]


class Measuring:
    """The signals that a policy wants of one graph, made when they are first asked for.

    Args:
        policy: whose signals they are.
        held_out: `module -> loss` on data that is not trained on; None where connections need not lower it.
        seed: of the samples that signals draw.
    """

    def __init__(self, policy: GrowthPolicy, held_out: Loss | None, seed: int) -> None:
        self._policy = policy
        self._held_out = held_out
        self._seed = seed
        self._signals: Mapping[str, Signal] | None = None

    def signals(self, graph: Graph, number: int) -> Mapping[str, Signal]:
        """The signals, in the round of this number from 0."""
        if self._signals is None:
            self._signals = self._policy.signals(graph, self._seed + number)
        return self._signals

    def forget(self) -> None:
        """Begin anew with the next batch."""
        self._signals = None

    def evidence(self, graph: Graph, number: int, stage: int) -> Evidence:
        """What the signals have seen, at the end of the round of this number.

        Args:
            graph: that they watch.
            number: of the round.
            stage: growths so far.

        Raises:
            SignalError: if one has seen too little.
        """
        signals: Mapping[str, Any] = self.signals(graph, number + 1)
        results = {name: signal.results() for name, signal in signals.items()}
        skips = signals.get("skips")
        return Evidence(
            activity=results.get("activity", {}),
            gradients=results.get("gradients", {}),
            directions=results.get("directions", {}),
            skips=tuple(results.get("skips", ())),
            held_out=self._agreement(graph, skips, number) if isinstance(skips, SkipSignal) else {},
            stage=stage,
        )

    def state(self) -> Any:
        """What `restore` needs, plain values and tensors; None where nothing was seen."""
        return None if self._signals is None else memory_of(self._signals)

    def restore(self, graph: Graph, number: int, state: Any) -> None:
        """Go on from a state, in the round of this number."""
        self.forget()
        if state is not None:
            remember(self.signals(graph, number), state)

    def _agreement(self, graph: Graph, training: SkipSignal, number: int) -> dict[str, float]:
        """How the connections' gradients agree with the held-out loss's; gradients of parameters are left alone."""
        if self._held_out is None:
            return {}
        held_out = self._policy.signals(graph, self._seed + number)["skips"]
        assert isinstance(held_out, SkipSignal)
        module = graph.module
        kept = [(parameter, parameter.grad) for parameter in module.parameters()]
        for parameter, _ in kept:
            parameter.grad = None  # what is there would be added to
        training_mode = module.training
        try:
            with Watch(module, [held_out]):
                self._held_out(module).backward()  # type: ignore[no-untyped-call]
        finally:
            module.train(training_mode)
            for parameter, gradient in kept:
                parameter.grad = gradient
        return training.agreement(held_out)
