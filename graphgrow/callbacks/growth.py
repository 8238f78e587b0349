"""What the callbacks of all libraries share: a grower over the one growing module of a model, round by round."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from graphgrow.errors import TrainingError
from graphgrow.records import DecisionRecord, StageRecord
from graphgrow.train.grower import Grower
from graphgrow.train.growing import Growing, growing_in
from graphgrow.train.policy import GrowthPolicy, make_policy
from graphgrow.train.stages import Stages


class Growth:
    """Lets the growing module in a model grow while another library trains it.

    Args:
        policy: or its name.
        folder: receives an ONNX file, benchmarked, and a record for each stage; None writes nothing.
        options: of the grower (`budget`, `when`, `every`, `averaged`, ...), as `Grower` takes them.
    """

    def __init__(self, policy: GrowthPolicy | str, folder: Path | None, options: Mapping[str, Any]) -> None:
        known = set(inspect.signature(Grower).parameters) - {"graph", "optimizer", "policy", "verify"}
        if unknown := sorted(set(options) - known):
            raise TrainingError(f"a grower has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        self._policy = make_policy(policy)
        self._folder = folder
        self._options = dict(options)
        self._growing: Growing | None = None
        self._grower: Grower | None = None
        self._stages: Stages | None = None
        self._optimizer: Optimizer | None = None
        self._awaited: Mapping[str, Any] | None = None

    @property
    def decisions(self) -> tuple[DecisionRecord, ...]:
        """All that was decided so far."""
        return () if self._grower is None else tuple(self._grower.decisions)

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """The stages so far, the present one last."""
        if self._stages is None:
            return ()
        present = self._stages.present
        return (*self._stages.ended, *([] if present is None else [present]))

    def average(self, averaged: AveragedModel) -> None:
        """Have an averaged model grow along, from `begin` on."""
        self._options["averaged"] = averaged

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Before the first batch: begin, or go on where `restore` says.

        Raises:
            TrainingError: if the model holds not exactly one growing module, or the optimizer does not train it as
                it was trained when the state was kept.
            ModeError: if the graph does not hold in train mode.
        """
        growing = growing_in(model)
        growing.graph.require_modes("train")
        self._growing, self._optimizer = growing, optimizer
        self._grower = Grower(growing.graph, optimizer, self._policy, verify=False, **self._options)
        self._stages = Stages(self._grower, optimizer, self._folder)
        growing.grower = self._grower
        if self._awaited is None:
            self._stages.begin()
            return
        awaited, self._awaited = self._awaited, None
        if awaited["ledger"] != growing.graph.ledger.to_json():
            raise TrainingError(
                "the model has grown otherwise than when the checkpoint was written: load the model's own state of "
                "that checkpoint too"
            )
        if awaited["names"] != (found := _names(optimizer, growing)):
            raise TrainingError(
                f"the optimizer's groups hold {_counts(found)} parameters of the network, those of the checkpoint "
                f"{_counts(awaited['names'])}, or others: its state was loaded into the wrong places; group "
                "parameters as before, or start from the weights alone"
            )
        self._grower.restore(growing.graph, awaited["grower"], growing.base)
        self._stages.restore(awaited["stages"])

    def round(self, metric: float | None) -> bool:
        """At the end of a round: grow, go back, or neither; returns whether the network has changed.

        Args:
            metric: the lower the better.
        """
        if self._grower is None or self._growing is None or self._stages is None:
            raise TrainingError("a round ended before the training began")
        before = self._grower.graph
        proposal = self._grower.propose(metric)
        if proposal is not None:
            self._stages.end()
            self._stages.begin(proposal)
        elif self._grower.graph is not before:
            self._stages.begin()  # what did not pay has ended before it was taken back
        if self._grower.graph is before:
            return False
        self._growing.become(self._grower.graph)
        _in_order(self._optimizer, self._growing)
        return True

    def end(self) -> None:
        """After the last batch: end the last stage, and observe no more."""
        if self._stages is not None and self._stages.present is not None:
            self._stages.end()
        if self._growing is not None:
            self._growing.grower = None

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the model's and the optimizer's own state: plain values and tensors."""
        if self._grower is None or self._growing is None or self._stages is None or self._optimizer is None:
            raise TrainingError("there is no state before the training began")
        return {
            "ledger": self._growing.graph.ledger.to_json(),
            "names": _names(self._optimizer, self._growing),
            "grower": self._grower.state(),
            "stages": self._stages.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Have `begin` go on from a state."""
        self._awaited = state


class Told:
    """What every callback tells of its growth."""

    _growth: Growth

    @property
    def decisions(self) -> tuple[DecisionRecord, ...]:
        """All that was decided so far."""
        return self._growth.decisions

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """The stages so far, the present one last."""
        return self._growth.stages


def _names(optimizer: Optimizer, growing: Growing) -> list[list[str]]:
    """The parameters of the network in each group, in order; others are passed over."""
    names = {id(parameter): name for name, parameter in growing.module.named_parameters()}
    return [
        [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]
        for group in optimizer.param_groups
    ]


def _counts(names: list[list[str]]) -> str:
    return " + ".join(str(len(group)) for group in names)


def _in_order(optimizer: Optimizer | None, growing: Growing) -> None:
    """Sort each group as the network's parameters are.

    An optimizer's state is saved by position: made anew from the grown network, it then has the same order.
    """
    if optimizer is None:
        return
    place = {id(parameter): number for number, parameter in enumerate(growing.module.parameters())}
    for group in optimizer.param_groups:
        own = [index for index, parameter in enumerate(group["params"]) if id(parameter) in place]
        ordered = sorted(own, key=lambda index: place[id(group["params"][index])])
        for key in ("params", "param_names"):
            if key in group:
                moved = [group[key][index] for index in ordered]
                for index, item in zip(own, moved, strict=True):
                    group[key][index] = item
