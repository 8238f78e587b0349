"""gg.clean: everything that a network does without, taken away until nothing of that kind is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch.optim import Optimizer

from graphgrow.errors import Declined
from graphgrow.network.network import Network, require_network
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation, Refusal
from graphgrow.rewrite.registry import pass_named

N = TypeVar("N", bound=Network)

CLEAN_UPS = (
    "settle-activation", "settle-operators", "drop-branch", "drop-identity", "shrink-kernel",
    "merge-units", "drop-units",
)  # fmt: skip
FOLDS = ("fold-batch-norm",)


def clean(network: N, fold: bool = False, optimizer: Optimizer | None = None) -> N:
    """Take away what the numbers show to be of no effect: closed branches, copies, unread units, identities, zero taps.

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
        found = next(_applied(network, kinds, optimizer), None)
        if found is None:
            return network
        network = found


def _applied(network: N, kinds: tuple[str, ...], optimizer: Optimizer | None) -> Iterator[N]:
    """What the first mutations make of a network; those that are declined after all are passed over."""
    for kind in kinds:
        for mutation in pass_named(kind).sites(network):
            if isinstance(mutation, Refusal):
                continue
            assert isinstance(mutation, Mutation)
            try:
                yield apply(network, mutation, optimizer=optimizer)
            except Declined:
                continue
