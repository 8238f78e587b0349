"""Where a growth can act: the groups for which a plan exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from graphgrow.errors import Declined
from graphgrow.network.groups import Group
from graphgrow.network.network import Network
from graphgrow.planning.growth import Plan
from graphgrow.rewrite.contract import Refusal


def growable(network: Network, plan: Callable[[Network, str], Plan]) -> Iterator[tuple[Group, Plan] | Refusal]:
    """The groups for which the plan does not decline, and that plan; for the others why."""
    for group in network.groups:
        if group.frozen is not None:
            yield Refusal(group.name, f"frozen: {group.frozen}")
            continue
        try:
            planned = plan(network, group.name)
        except Declined as declined:
            yield Refusal(group.name, str(declined))
            continue
        yield group, planned
