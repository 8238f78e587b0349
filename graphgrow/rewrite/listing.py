"""What a listed mutation keeps of the graph that it was listed on, so that its names mean the same behind others.

Sites are counted: where a module is called twice, `relu@2` becomes `relu` when the first call is taken away. A mutation
that `graph.mutations()` found means the node that it was found at, in every graph that grew from that one. A mutation
that is written, as text or by its class, means what its names mean in the graph that it comes to, as a ledger reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from graphgrow.errors import MutationError
from graphgrow.ir.inputs import InputSpec
from graphgrow.network.network import Network, Step
from graphgrow.network.sites import stem_of
from graphgrow.rewrite.contract import Mutation

_KEY = "_listed"  # no field: it is no part of what the mutation is, nor of its text
M = TypeVar("M", bound=Mutation)


@dataclass(frozen=True, eq=False)
class _Place:
    """A node of the graph that a mutation was listed on.

    Attributes:
        node: its name in the graph, which it keeps.
        stem: the name of its site, not counted.
    """

    node: str
    stem: str


@dataclass(frozen=True, eq=False)
class _Listed:
    """Where a mutation was found.

    Attributes:
        base: the inputs of the base of that graph, which everything that grows from it carries along.
        steps: that led to the graph.
        places: by field of the mutation, the node that it names.
    """

    base: InputSpec
    steps: tuple[Step, ...]
    places: Mapping[str, _Place]

    def is_before(self, network: Network) -> bool:
        """Whether a network has grown from the graph of the list."""
        if (network.base_inputs or network.inputs) is not self.base or len(network.steps) < len(self.steps):
            return False
        return all(mine is other for mine, other in zip(self.steps, network.steps, strict=False))


def listed(mutation: M, network: Network) -> M:
    """The mutation, which knows from now on at which nodes of the network it was found."""
    places = {}
    for field in mutation.places:
        name = getattr(mutation, field, None)
        node = network.sites.named(name) if isinstance(name, str) else None
        if node is not None:
            places[field] = _Place(node.name, stem_of(node))
    base = network.base_inputs or network.inputs
    object.__setattr__(mutation, _KEY, _Listed(base, network.steps, places))
    return mutation


def renamed(mutation: M, network: Network) -> M:
    """The mutation by the names that its nodes have in a network; as it is where it was not listed on an ancestor.

    Raises:
        MutationError: if a node is gone, and another one has its name now.
    """
    found: _Listed | None = vars(mutation).get(_KEY)
    if found is None or len(found.steps) == len(network.steps) or not found.is_before(network):
        return mutation
    changed = {}
    nodes = {node.name: node for node in network.module.graph.nodes}
    for field, place in found.places.items():
        name = getattr(mutation, field)
        node, other = nodes.get(place.node), network.sites.named(name)
        if node is not None and stem_of(node) == place.stem:
            if node is not other:
                changed[field] = network.sites.name(node)
        elif other is not None:
            raise MutationError(
                f"{mutation}: the `{name}` that it was listed for is gone, and another site has that name now; "
                "list the mutations of the grown graph"
            )
    return dataclasses.replace(mutation, **changed) if changed else mutation


def moved(mutation: Mutation, first: Network, network: Network) -> str:
    """What the sites of a written mutation are called by now, where its names meant other ones when its list began.

    Args:
        mutation: of the list, which cannot be applied as it is written.
        first: the network that the list is for.
        network: what the mutations in front of it have made of that.

    Returns:
        A hint for its error; empty where its names have not moved.
    """
    nodes = {node.name: node for node in network.module.graph.nodes}
    for field in mutation.places:
        name = getattr(mutation, field, None)
        meant = first.sites.named(name) if isinstance(name, str) else None
        node = None if meant is None else nodes.get(meant.name)
        if meant is None or node is None or stem_of(node) != stem_of(meant) or node is network.sites.named(str(name)):
            continue
        return (
            f"; those in front of it in the list have moved names: what was `{name}` is `{network.sites.name(node)}` "
            "by now. Write that, or pass what graph.mutations() lists"
        )
    return ""
