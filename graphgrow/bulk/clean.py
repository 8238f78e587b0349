"""gg.clean: everything that a network does without, taken away until nothing of that kind is left."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from torch.optim import Optimizer

from graphgrow.errors import Declined, MutationError
from graphgrow.network.network import Network, require_network
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.listing import listed
from graphgrow.rewrite.registry import pass_named

N = TypeVar("N", bound=Network)

CLEAN_UPS = (
    "settle-activation", "settle-operators", "drop-branch", "drop-identity", "shrink-kernel",
    "merge-units", "drop-units",
)  # fmt: skip
FOLDS = ("fold-batch-norm",)


def clean(network: N, fold: bool = False, optimizer: Optimizer | None = None) -> N:
    """Take away what the numbers show to be of no effect: closed branches, copies, unread units, identities, zero taps.

        smaller = gg.clean(grown)

    The inverse of growing: a network that was grown, and in which nothing of that has learned yet, is the one from
    before. Exact in eval and train mode.

    Args:
        network: a graph; it is left as it is.
        fold: fold batch norms into the maps in front of them as well, which is exact in eval mode alone.
        optimizer: carried over, as `gg.apply` does.

    Returns:
        The cleaned graph, whose ledger says what was done; the same one where there was nothing to do.
    """
    require_network(network, "gg.clean")
    kinds = (*CLEAN_UPS, *FOLDS) if fold else CLEAN_UPS
    while True:
        found = next((swept for kind in kinds if (swept := _swept(network, kind, optimizer)) is not network), None)
        if found is None:
            return network
        network = found


def _swept(network: N, kind: str, optimizer: Optimizer | None) -> N:
    """What all mutations of one kind that are listed make of a network, one behind the other.

    Where one cannot be applied behind the others they are applied one by one. What is declined after all is passed over
    then, and so is what those in front of it have left no place for: it is listed again, if it still applies.
    """
    found = [listed(site, network) for site in pass_named(kind).sites(network) if isinstance(site, Mutation)]
    if not found:
        return network
    with suppress(Declined, MutationError):
        return apply(network, found, optimizer=optimizer)
    current = network
    for mutation in found:
        try:
            current = apply(current, mutation, optimizer=optimizer)
        except Declined:
            continue
        except MutationError:
            if current is network:
                raise
    return current
