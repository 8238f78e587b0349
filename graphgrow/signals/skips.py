"""What connections would learn: the gradient that the weights of each would get, before any is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch

from graphgrow.blocks.block import Block
from graphgrow.blocks.connection import GatedSkip, ProjectedMaps
from graphgrow.errors import SignalError
from graphgrow.network.channels import Layout
from graphgrow.network.network import Network
from graphgrow.rewrite.connections import connection
from graphgrow.signals.watch import Callback, on_gradient

NULLS = 4  # permutations of the batch that the null is a mean over


@dataclass(frozen=True)
class SkipScore:
    """What one connection would learn.

    Attributes:
        source: the site that would be read.
        target: the site to which it would be added.
        norm: of the gradient that the connection's weights would get, a mean over batches.
        null: the same where each sample's source meets another sample's target: what chance gives.
        correlation: the norm beyond chance, over what it would be if source and gradient were aligned everywhere,
            in [0, 1].
        flops: of one sample that the connection adds, elementwise operations among them.
        batches: that were seen.
    """

    source: str
    target: str
    norm: float
    null: float
    correlation: float
    flops: int
    batches: int

    @property
    def above_chance(self) -> float:
        """Norm over null."""
        return self.norm / self.null if self.null > 0 else math.inf if self.norm > 0 else 0.0

    @property
    def per_flop(self) -> float:
        """Correlation for each million of added FLOPs."""
        return self.correlation / (self.flops / 1e6)

    @property
    def mutation(self) -> str:
        """The mutation that makes the connection."""
        return f"add-skip({self.source}, target={self.target})"


class SkipSignal:
    """Scores of connections from one value to another, streamed from training batches.

    The weights of a linear connection y + W x start at zero and get the gradient E[g x^T], with g = dL/dy: of this the
    norm is taken, as Firefly (Wu et al., "Firefly neural architecture descent", NeurIPS 2020) and GradMax (Evci et al.,
    ICLR 2022) rate candidates by the gradient of what would be added. A scalar gate gets <g, x>. Values are brought to
    the target's resolution as the connection itself does it. Batches whose samples are permuted give the null; the
    part of the norm beyond it is sqrt(norm^2 - null^2), since noise adds to the squared norm.

    Args:
        network: that is run.
        pairs: (source, target) sites, as in `add-skip(source, target=target)`.
        most_pairs: of these are measured, the first ones.
        rows: at most so many of each batch are used.
        most: channels beyond which a value is measured in as many random combinations; expected squared norms stay.
        seed: of these combinations.

    Raises:
        Declined, MutationError: if two sites cannot be joined.
    """

    def __init__(
        self,
        network: Network,
        pairs: Iterable[tuple[str, str]],
        *,
        most_pairs: int = 64,
        rows: int = 16,
        most: int = 64,
        seed: int = 0,
    ) -> None:
        self._rows = rows
        self._most = most
        self._seed = seed
        self._pairs = [_pair(network, *sites) for sites in list(pairs)[:most_pairs]]

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """Each source's value and each target's gradient."""
        for pair in self._pairs:
            yield pair.source_node, partial(self._arrive, pair)
            yield pair.target_node, partial(on_gradient, callback=partial(self._leave, pair))

    def results(self) -> list[SkipScore]:
        """The scores so far, the largest correlation for each added FLOP first.

        Raises:
            SignalError: if no backward pass was seen.
        """
        return sorted((pair.score() for pair in self._pairs), key=lambda score: -score.per_flop)

    def agreement(self, held_out: SkipSignal) -> dict[str, float]:
        """By mutation, the cosine of each connection's gradient here and on data that was held out.

        A first step down the gradient measured here changes the held-out loss by minus their inner product, so that a
        connection whose cosine is not positive brings nothing there.

        Args:
            held_out: a signal over the same pairs with the same options.

        Raises:
            SignalError: if one of them saw no backward pass, or they measure other pairs.
        """
        if [pair.sites for pair in self._pairs] != [pair.sites for pair in held_out._pairs]:
            raise SignalError("the two signals measure other pairs; make both with the same arguments")
        cosines = {}
        for mine, theirs in zip(self._pairs, held_out._pairs, strict=True):
            a, b = mine.gradient(), theirs.gradient()
            size = float(a.norm() * b.norm())
            cosines[mine.score().mutation] = float((a * b).sum()) / size if size > 0 else 0.0
        return cosines

    def _arrive(self, pair: _Pair, value: torch.Tensor) -> None:
        source = pair.read(value.detach()[: self._rows])
        pair.arriving = source.clone() if pair.gated else self._combined(pair, source)

    def _leave(self, pair: _Pair, gradient: torch.Tensor) -> None:
        if pair.arriving is None:
            return
        part = gradient[: self._rows]
        part = part if pair.gated else self._combined(pair, part)
        pair.update(part, len(gradient) / min(len(gradient), self._rows))

    def _combined(self, pair: _Pair, value: torch.Tensor) -> torch.Tensor:
        """(batch, channels, positions...) or (batch, ..., channels) -> (batch, positions, channels or combinations)."""
        value = value if value.dtype == torch.float64 else value.float()
        rows = value.movedim(1, -1) if pair.maps else value
        rows = rows.reshape(len(rows), -1, rows.shape[-1])
        if rows.shape[-1] <= self._most:
            return rows.clone()
        generator = torch.Generator().manual_seed(self._seed + rows.shape[-1])
        drawn = torch.randn(rows.shape[-1], self._most, generator=generator) / self._most**0.5
        combined: torch.Tensor = rows @ drawn.to(rows)
        return combined


def _pair(network: Network, source: str, target: str) -> _Pair:
    nodes = network.sites.find(source), network.sites.find(target)
    with torch.random.fork_rng(devices=[]):  # the block is made to be asked, not to be used
        block = connection(network, *nodes)()
    read, written = (network.channels.of(node) for node in nodes)
    positions = math.prod(written.shape[1:]) // written.count
    gated = isinstance(block, GatedSkip)
    flops = 2 * positions * written.count * (1 if gated else read.count)
    size = torch.Size(written.shape[2:]) if written.layout is Layout.MAPS else torch.Size()
    return _Pair(source, target, nodes[0].name, nodes[1].name, block, written.layout is Layout.MAPS, size, gated, flops)


@dataclass(eq=False)
class _Pair:
    source: str
    target: str
    source_node: str
    target_node: str
    block: Block
    maps: bool
    size: torch.Size
    gated: bool
    flops: int
    arriving: torch.Tensor | None = None
    batches: int = 0
    _sums: torch.Tensor | None = None  # the gradient, then one for each permutation
    _aligned: float = 0.0

    @property
    def sites(self) -> tuple[str, str]:
        """Source and target."""
        return self.source, self.target

    def gradient(self) -> torch.Tensor:
        """Of the connection's weights (in random combinations, where those are measured), a mean over batches."""
        if self._sums is None:
            name = self.target
            raise SignalError(f"no gradient of `{name}` was seen; run loss.backward() while the model is watched")
        return self._sums[0] / self.batches

    def read(self, value: torch.Tensor) -> torch.Tensor:
        """What the connection's weights would read."""
        return self.block.resized(value, self.size) if isinstance(self.block, ProjectedMaps) else value

    def update(self, gradient: torch.Tensor, scale: float) -> None:
        """Add one batch's products."""
        assert self.arriving is not None
        shifts = [0, *(1 + number % max(1, len(gradient) - 1) for number in range(NULLS))]
        found = torch.stack([self._product(gradient, self.arriving.roll(shift, 0)) for shift in shifts]) * scale
        self._sums = found if self._sums is None else self._sums + found
        self._aligned += float(gradient.norm() * self.arriving.norm()) * scale
        self.arriving = None
        self.batches += 1

    def score(self) -> SkipScore:
        if self._sums is None:
            raise SignalError(
                f"no gradient of `{self.target}` was seen; run loss.backward() while the model is watched"
            )
        norms = (self._sums / self.batches).flatten(1).norm(dim=1)
        norm, null = float(norms[0]), float(norms[1:].square().mean().sqrt())
        beyond = math.sqrt(max(0.0, norm**2 - null**2))
        aligned = self._aligned / self.batches
        return SkipScore(
            self.source, self.target, norm, null, beyond / aligned if aligned > 0 else 0.0, self.flops, self.batches
        )

    def _product(self, gradient: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        if self.gated:
            return (gradient.double() * source.double()).sum().reshape(1)
        return gradient.flatten(0, 1).T @ source.flatten(0, 1)
