"""add-skip: a new connection from one value to another's output, closed at the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from graphgrow.errors import Declined
from graphgrow.ir.editor import Editor
from graphgrow.network.junctions import junctions
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.connections import connection
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.insert import Insertion

NEAREST = 2  # connections listed for each target; a longer list would grow with the square of the depth


@dataclass(frozen=True)
class AddSkip(Mutation):
    """Add one value to another's output, by a connection that starts closed.

    Where shapes agree it is the value itself behind a scalar gate that starts at 0. Otherwise it is a linear map that
    starts at zero, without a gate: 1x1 on maps, pooled to the target's resolution where that falls by whole numbers,
    else interpolated; resolutions that are equal must stay so for inputs of other sizes. What read the target reads
    the sum. Exact in eval and train mode.

    Attributes:
        source: the site that is read, in front of the target.
        target: the site to which it is added.
    """

    source: str
    target: str
    name: ClassVar[str] = "add-skip"
    summary: ClassVar[str] = "a new connection from one value to another, closed at the start"
    places: ClassVar[tuple[str, ...]] = ("source", "target")

    @classmethod
    def sites(cls, network: Network) -> Iterator[AddSkip | Refusal]:
        """For each junction those two in front of it that are nearest, not its own operands or joined already."""
        passed: list[fx.Node] = []
        made = {entry.mutation for entry in network.ledger.entries}
        for target in junctions(network):
            name = network.sites.name(target)
            found, why = 0, "nothing stands in front of it"
            for source in reversed(passed):
                if found == NEAREST or source in target.all_input_nodes:
                    continue
                try:
                    connection(network, source, target)
                except Declined as declined:
                    why = str(declined)
                    continue
                found += 1
                offered = cls(network.sites.name(source), name)
                if str(offered) not in made:
                    yield offered
            if not found:
                yield Refusal(name, why)
            passed.append(target)
            del passed[:-8]  # a cap on the distance

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Make the connection."""
        source, target = network.sites.find(self.source), network.sites.find(self.target)
        block = connection(network, source, target)
        insertion = Insertion(network, editor, self.target, self.name, generator)
        read = insertion.readable(editor.node(source.name))
        insertion.behind(insertion.site)
        insertion.carry_on(insertion.site, insertion.inline(insertion.make(block), [read, insertion.site]))
        return insertion.step(), []
