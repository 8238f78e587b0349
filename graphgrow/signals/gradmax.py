"""What new units would learn fastest: the gradient of a connection through them, and its singular vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch

from graphgrow.errors import SignalError
from graphgrow.network.groups import Group
from graphgrow.network.network import Network
from graphgrow.signals.between import Between, between
from graphgrow.signals.places import for_each
from graphgrow.signals.watch import Callback, on_gradient


@dataclass(frozen=True, eq=False)
class GrowthDirections:
    """The singular values and vectors of M = E[dL/dz_next h_prev^T] for one hidden group.

    Attributes:
        group: the group's name.
        values: singular values, falling, (rank,); a new unit along the i-th pair gets a gradient of norm values[i].
        outgoing: GradMax's initial reading weights for new units with zero incoming weights: the left singular
            vectors, one a row, each of norm 1, (rank, outputs, *kernel of the reader).
        incoming: the mirror, initial incoming weights for new units that are read with zero: the right singular
            vectors, (rank, inputs, *kernel of the writer).
        normalised: whether a norm stands between writer and reader; zero incoming weights are then out of the question.
        batches: that were seen.
        weight: name of the parameter that writes the group; None where its weight is computed.
        columns: whether that parameter holds one unit a column.
    """

    group: str
    values: torch.Tensor
    outgoing: torch.Tensor
    incoming: torch.Tensor
    normalised: bool
    batches: int
    weight: str | None = None
    columns: bool = False

    def score(self, units: int) -> float:
        """The gradient norm that `units` new units get at once: sqrt(sum of the first squared singular values)."""
        return float(self.values[:units].square().sum().sqrt())


class GradMaxSignal:
    """GradMax scores of hidden groups, streamed from training batches.

    For new units with incoming weights A and reading weights B between z_prev -> h and h -> z_next the loss has, where
    the activation has slope 1, the gradients dL/dA = B^T M and dL/dB = M A^T, with M = E[dL/dz_next h_prev^T]. Of all
    B of norm 1 the left singular vectors give the largest dL/dA (Evci et al., "GradMax: growing neural networks
    using gradient information", ICLR 2022); the same M is what TINY (Verbockhaven et al., "Growing tiny networks",
    TMLR 2024) starts from, less what the present weights can do themselves. For convolutions h_prev is unfolded by the
    writer's kernel and M is the gradient of the reader's kernel over the unfolded channels.

    Args:
        network: whose groups they are.
        groups: hidden groups; none given: all that have one writer and one reader.
        rows: at most so many samples of each batch are used.
        most: columns of M that are kept exactly; of a wider h_prev as many random combinations are (an estimate of M
            whose expected norm is right).
        seed: of the random combinations.

    Raises:
        Declined: if a group that was named has several writers or readers.
    """

    def __init__(
        self,
        network: Network,
        groups: Iterable[Group] | None = None,
        *,
        rows: int = 16,
        most: int = 512,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._seen: dict[str, _Seen] = {}
        for group, found in for_each(network, groups, partial(between, network)):
            self._seen[group.name] = _Seen(found, _columns(found, most, generator), rows * found.rows)

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """What each writer reads, and what each reader writes."""
        for seen in self._seen.values():
            yield seen.between.writer.source, seen.arrive
            yield seen.between.reader.node, partial(on_gradient, callback=seen.leave)

    def results(self) -> dict[str, GrowthDirections]:
        """By group, what was seen so far.

        Raises:
            SignalError: if no backward pass was seen.
        """
        return {name: seen.directions() for name, seen in self._seen.items()}


def _columns(found: Between, most: int, generator: torch.Generator) -> torch.Tensor:
    """Incoming weights (columns, inputs, *kernel) of the virtual units over which M is taken; the identity if few."""
    fan = found.writer.fan_in
    shape = (min(fan, most), found.writer.inputs, *found.writer.kernel)
    if fan <= most:
        return torch.eye(fan).reshape(shape)
    drawn: torch.Tensor = torch.randn(shape, generator=generator) / most**0.5
    return drawn


class _Seen:
    def __init__(self, found: Between, columns: torch.Tensor, rows: int) -> None:
        self.between = found
        self._columns = columns
        self._rows = rows
        self._arriving: torch.Tensor | None = None
        self._sum: torch.Tensor | None = None
        self._batches = 0

    def arrive(self, value: torch.Tensor) -> None:
        """Keep what the virtual units would hold, of the first rows of the batch."""
        part = value.detach()[: self._rows]
        part = part if part.dtype == torch.float64 else part.float()
        self._arriving = self.between.writer.apply(part, self._columns.to(part))

    def leave(self, gradient: torch.Tensor) -> None:
        """Take the gradient behind the reader of the same rows."""
        if self._arriving is None:
            return
        part = gradient[: self._rows].to(self._arriving.dtype)
        found = self.between.reader.weight_gradient(self._arriving, part) * (len(gradient) / len(part))
        self._sum = found if self._sum is None else self._sum + found
        self._arriving = None
        self._batches += 1

    def directions(self) -> GrowthDirections:
        if self._sum is None:
            name = self.between.group
            raise SignalError(f"no gradient behind `{name}` was seen; run loss.backward() while the model is watched")
        columns = self._columns.to(self._sum)
        outputs, virtual = self._sum.shape[:2]
        kernel = self.between.reader.kernel
        matrix = (self._sum / self._batches).movedim(1, -1).reshape(-1, virtual)  # rows: output, kernel position
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        outgoing = left.T.reshape(len(values), outputs, *kernel)
        incoming = (right @ columns.flatten(1)).reshape(len(values), *columns.shape[1:])
        norms = incoming.flatten(1).norm(dim=1).clamp(min=1e-30)
        incoming = incoming / norms.reshape(-1, *(1,) * (incoming.dim() - 1))
        return GrowthDirections(
            self.between.group,
            values.cpu(),
            outgoing.cpu(),
            incoming.cpu(),
            self.between.normalised,
            self._batches,
            self.between.writer.weight,
            self.between.writer.columns,
        )
