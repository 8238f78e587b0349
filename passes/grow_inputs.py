"""grow-inputs: more channels at an input of the model, read with zero weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from graphgrow.errors import Declined
from graphgrow.ir.editor import Editor
from graphgrow.ir.terms import Space, normal
from graphgrow.ir.value import Value
from graphgrow.network.network import Network, Step
from graphgrow.ops.analysis import Opening
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.interface import append_to_interface, appended, input_spec, opened


@dataclass(frozen=True)
class GrowInputs(Mutation):
    """Append channels to an input of the model, behind those that are there; all that reads them does so with zero.

    The grown model wants inputs with the new channels, and answers as the old one did to the old ones, whatever the
    new ones hold. Exact in eval and train mode.

    Attributes:
        stem: the module that reads the input.
        extra: how many channels, at least 1.
    """

    stem: str
    extra: int = 1
    name: ClassVar[str] = "grow-inputs"
    summary: ClassVar[str] = "more channels at an input of the model, read with zero weights"
    places: ClassVar[tuple[str, ...]] = ("stem",)
    unasked: ClassVar[bool] = False

    @classmethod
    def sites(cls, network: Network) -> Iterator[GrowInputs | Refusal]:
        """The first reader of each axis of an input that weights read."""
        seen: set[Space] = set()
        for facts in network.analysis.facts.values():
            for c in facts.contractions:
                found = _origin(network, normal(c.term))
                if found is None or found[2] in seen or facts.module_path is None:
                    continue
                seen.add(found[2])
                name = network.sites.name(facts.node)
                try:
                    free, space = _freed(network, found[0], found[1])
                    plan_growth(free.analysis, appended(space, 1), Kind.APPEND)
                    input_spec(network, found[0], found[1], space.size + 1)
                except Declined as declined:
                    yield Refusal(name, str(declined))
                    continue
                yield cls(name)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Append them."""
        facts = network.analysis.facts[network.sites.find(self.stem)]
        found = next(filter(None, (_origin(network, normal(c.term)) for c in facts.contractions)), None)
        if found is None:
            raise Declined(f"`{self.stem}` reads no axis of an input with weights")
        placeholder, axis, _ = found
        free, space = _freed(network, placeholder, axis)
        spec, number = input_spec(network, placeholder, axis, space.size + max(self.extra, 1))
        kept = torch.arange(space.size)
        step, changes = append_to_interface(free, editor, space, self.extra, generator, spec)
        return dataclasses.replace(step, inputs={str(number): {axis: kept}}), changes


def _origin(network: Network, term: object) -> tuple[fx.Node, int, Space] | None:
    """The input, its axis and the space, where a term is the axis of an input; the batch axis is none."""
    for node in network.module.graph.find_nodes(op="placeholder"):
        value = network.analysis.facts[node].output
        for axis, own in enumerate(value.axes if isinstance(value, Value) else ()):
            if axis and normal(own) is term:
                return node, axis, normal(own)  # type: ignore[return-value]  # the term is a space
    return None


def _freed(network: Network, placeholder: fx.Node, axis: int) -> tuple[Network, Space]:
    """The network with that axis free, and its space.

    Raises:
        Declined: if something else freezes it.
    """
    free = opened(network, Opening(inputs=frozenset({(placeholder.name, axis)})))
    value = free.analysis.facts[placeholder].output
    space = normal(value.axes[axis])
    if not isinstance(space, Space):
        raise Declined(f"the axis is cut into parts behind `{placeholder.name}`")
    if space.frozen is not None:
        raise Declined(f"the axis is frozen: {space.frozen}")
    return free, space
