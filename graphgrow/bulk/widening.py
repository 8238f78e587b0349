"""Which mutation gives a channel group a certain number of units more."""

from __future__ import annotations

from graphgrow.errors import Declined
from graphgrow.ir.positions import Units
from graphgrow.network.groups import Group
from graphgrow.network.network import Network
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth


def widening(network: Network, group: Group, extra: int) -> str:
    """The text of a mutation that adds units: `widen`; where that is not exact and whole copies will do, `split`.

    Under a norm behind operators that carry no means (post-norm blocks, depthwise convolutions) only copies of all
    units are exact.

    Args:
        network: with the group.
        group: that grows.
        extra: units to add.

    Raises:
        Declined: if neither is exact, with the reason of `widen`, and whether a multiple of the units would be.
    """
    try:
        plan_growth(network.analysis, Units.appended(group.space, extra), Kind.APPEND)
    except Declined as declined:
        copies = max(extra // group.size, 1) + 1
        try:
            plan_growth(network.analysis, Units.copied(group.space, copies), Kind.REPLICATE)
        except Declined:
            raise declined from None
        if extra % group.size:
            only = f"only whole copies are exact here: {copies * group.size} units or another multiple of {group.size}"
            raise Declined(f"{declined}; {only}") from None
        return f"split({group.name}{f', copies={copies}' if copies > 2 else ''})"
    return f"widen({group.name}, extra={extra})"
