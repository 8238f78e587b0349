"""grow-outputs: more classes, or features, at an output of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.errors import Declined
from graphgrow.ir.editor import Editor
from graphgrow.network.groups import Group
from graphgrow.network.network import Network, Step
from graphgrow.ops.analysis import Opening
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.interface import append_to_interface, appended, opened, refuse_moving_places

OPENING = Opening(outputs=True)


@dataclass(frozen=True)
class GrowOutputs(Mutation):
    """Append units to an output of the model: more classes behind a head, with fresh weights.

    The old logits stay as they are, in their places; the output has a new shape, and `gg.verify` compares the old part
    of it. Where the model joins several heads in one output (`torch.cat`), what stands behind the head moves back, as
    `graph.steps[-1].outputs` says. It declines where the model computes something over all of them (a softmax, a
    mean). Exact in eval and train mode.

    Attributes:
        head: the channel group that leaves the model.
        extra: how many units, at least 1.
    """

    head: str
    extra: int = 1
    name: ClassVar[str] = "grow-outputs"
    summary: ClassVar[str] = "more classes, or features, at an output of the model"
    unasked: ClassVar[bool] = False

    @classmethod
    def sites(cls, network: Network) -> Iterator[GrowOutputs | Refusal]:
        """Every group that leaves the model, and that nothing else freezes."""
        free = opened(network, OPENING)
        for group in network.groups:
            if group.frozen is None or group.frozen.text != "a model output":
                continue
            try:
                plan_growth(free.analysis, appended(_leaving(free, group.name).space, 1), Kind.APPEND)
            except Declined as declined:
                yield Refusal(group.name, str(declined))
                continue
            yield cls(group.name)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Append them."""
        free = opened(network, OPENING)
        if network.group(self.head).frozen is None:
            raise Declined(f"`{self.head}` does not leave the model; widen makes it wider")
        return append_to_interface(free, editor, _leaving(free, self.head).space, self.extra, generator)


def _leaving(free: Network, name: str) -> Group:
    """The group of that name in a network whose outputs are free.

    Raises:
        Declined: if something else freezes it, an input that has the same axis among them.
    """
    group = free.group(name)
    if group.frozen is not None:
        raise Declined(f"the axis is frozen: {group.frozen}")
    refuse_moving_places(free, group.space)
    return group
