"""The public graph: a thin face over capture, axes and passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import nn

from graphgrow.network.describe import counted, explanation, graph_text
from graphgrow.network.network import Network
from graphgrow.rewrite.contract import Mutation, Refusal
from graphgrow.rewrite.cost import MutationCost, NodeCost, Outline, count_flops, node_costs
from graphgrow.rewrite.listing import listed
from graphgrow.rewrite.registry import pass_named, passes
from graphgrow.rewrite.topology import to_networkx

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class Graph(Network):
    """A captured model that can be inspected and grown.

    `graph.module` is an ordinary nn.Module, called like the original; `graph.groups` are its channel groups. A
    graph is a value: `gg.apply` returns a new one.
    """

    def mutations(self, pass_name: str | None = None) -> Mutations:
        """The mutations that apply here, found as they are asked for.

        Of one pass, or of all that keep how the model is called and what it answers in both modes; `grow-inputs`,
        `grow-outputs`, `grow-vocabulary`, `grow-positions` and `fold-batch-norm` are listed by their names.

        Raises:
            MutationError: if there is no such pass.
        """
        kinds = [kind for kind in passes().values() if kind.unasked] if pass_name is None else [pass_named(pass_name)]
        return Mutations(self, kinds)

    def new_parameters(self) -> list[nn.Parameter]:
        """The parameters that the ledger's mutations replaced, to train only what is new."""
        touched = {name for step in self.steps for name in step.touched}
        return [parameter for name, parameter in self.module.named_parameters() if name in touched]

    @property
    def parameter_count(self) -> int:
        """Number of scalar parameters, tied ones once."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward pass of one sample, in eval mode, elementwise ones left out.

        Raises:
            Unsupported: if the model does not run on one sample without data.
        """
        return self._flops

    def node_costs(self) -> dict[str, NodeCost]:
        """Parameters and FLOPs (of one sample) of each node by its name, in graph order.

        Raises:
            Unsupported: as `flops`.
        """
        return node_costs(self)

    def cost(self, mutations: Mutation | str | Iterable[Mutation | str]) -> MutationCost:
        """What a mutation would add in parameters and FLOPs (of one sample), or several of them in a row together.

        Nothing is changed: they are carried out on a copy that holds no data.

        Raises:
            MutationError, Declined: as `gg.apply` does.
            Unsupported: as `flops`.
        """
        return self._outline.cost(mutations)

    def to_networkx(self) -> nx.DiGraph:
        """The graph as a networkx.DiGraph: nodes by name with op, target, path, shape, parameters and flops."""
        return to_networkx(self)

    @cached_property
    def _flops(self) -> int:
        return count_flops(self)

    @cached_property
    def _outline(self) -> Outline:
        return Outline.of(self, self.flops)

    def text(self) -> str:
        """The graph as text: each node with its axes, groups by name; equal text means equal structure."""
        return graph_text(self)

    def explain(self) -> str:
        """In words: how the model was captured, what can grow, what cannot, and why."""
        return explanation(self)

    def __repr__(self) -> str:
        count = sum(group.frozen is None for group in self.groups)
        return (
            f"Graph({type(self.module).__name__}, {self.parameter_count:,} parameters, "
            f"{count} of {counted(len(self.groups), 'channel group')} can grow, "
            f"{counted(len(self.ledger), 'mutation')} applied)"
        )


class Mutations(Sequence[Mutation]):
    """A lazy sequence: each mutation is found when it is first asked for. Prints one a line."""

    def __init__(self, graph: Network, kinds: Sequence[type[Mutation]]) -> None:
        self._found: list[Mutation] = []
        self._refusals: list[Refusal] = []
        self._graph = graph
        self._rest = ((kind.name, found) for kind in kinds for found in kind.sites(graph))

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Where the passes looked and do not apply, and why."""
        self._reach(None)
        return tuple(self._refusals)

    def __str__(self) -> str:
        refused = len(self.refusals)
        elsewhere = [f"elsewhere {counted(refused, 'refusal')}: `.refusals` has the reasons"] if refused else []
        return "\n".join([*map(str, self), *elsewhere]) or "none"

    def __repr__(self) -> str:
        return f"<the mutations of {self._graph!r}, found as they are asked for; print() lists them>"

    def __iter__(self) -> Iterator[Mutation]:
        position = 0
        while self._reach(position + 1):
            yield self._found[position]
            position += 1

    def __len__(self) -> int:
        self._reach(None)
        return len(self._found)

    def __getitem__(self, index: int | slice) -> Mutation | list[Mutation]:  # type: ignore[override]
        self._reach(index + 1 if isinstance(index, int) and index >= 0 else None)
        return self._found[index]

    def _reach(self, count: int | None) -> bool:
        while count is None or len(self._found) < count:
            name, found = next(self._rest, ("", None))
            if found is None:
                return False
            if isinstance(found, Refusal):
                self._refusals.append(dataclasses.replace(found, of=name))
            else:
                self._found.append(listed(found, self._graph))
        return True
