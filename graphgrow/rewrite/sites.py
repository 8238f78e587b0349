"""Where a growth can act: the groups for which a plan exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from graphgrow.errors import Declined
from graphgrow.rewrite.groups import Group
from graphgrow.rewrite.network import Network
from graphgrow.rewrite.plan import Plan


def growable(network: Network, plan: Callable[[Network, str], Plan]) -> Iterator[Group]:
    """The groups that are not frozen and for which the plan does not decline."""
    for group in network.groups:
        if group.frozen is not None:
            continue
        try:
            plan(network, group.name)
        except Declined:
            continue
        yield group
