"""What splitting a unit would bring to second order: the least eigenvalue of its splitting matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import fx, nn

from graphgrow.blocks.activations import as_module
from graphgrow.errors import Declined, SignalError
from graphgrow.ir.called import called_module
from graphgrow.network.groups import Group
from graphgrow.network.junctions import is_activation
from graphgrow.network.network import Network
from graphgrow.signals.between import Between, between
from graphgrow.signals.places import for_each
from graphgrow.signals.watch import Callback, on_gradient


@dataclass(frozen=True, eq=False)
class SplittingIndex:
    """Splitting indices of one hidden group.

    Attributes:
        group: the group's name.
        index: of each unit, float64 (units,); the more negative, the more the loss falls when its copies part.
        batches: that were seen.
    """

    group: str
    index: torch.Tensor
    batches: int


class SplittingSignal:
    """Splitting indices of hidden groups whose activation is curved, streamed from training batches.

    Copies of a unit h = f(w x) that part by +-eps v change the loss by eps^2 v^T S v / 2 with the splitting matrix
    S = E[dL/dh f''(w x) x x^T]; its least eigenvalue is the splitting index (Liu, Wu and Wang, "Splitting steepest
    descent for growing neural architectures", NeurIPS 2019). A piecewise linear activation has f'' = 0 almost
    everywhere and no index; such groups decline.

    Args:
        network: whose groups they are.
        groups: hidden groups; none given: all that have one writer, one reader and a curved activation.
        rows: at most so many of each batch are used.
        most: weights of a unit beyond which S is taken in a random subspace of so many dimensions; the index is then
            not below the true one (Cauchy's interlacing).
        seed: of that subspace.

    Raises:
        Declined: if a group that was named has no splitting index, with the reason.
    """

    def __init__(
        self,
        network: Network,
        groups: Iterable[Group] | None = None,
        *,
        rows: int = 16,
        most: int = 64,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._seen: dict[str, _Seen] = {}
        for group, (found, node, activation) in for_each(network, groups, partial(_curved, network)):
            basis = _basis(found, most, generator)
            self._seen[group.name] = _Seen(found, node, activation, basis, rows * found.rows)

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """What each writer reads and writes, and its activation's output."""
        for seen in self._seen.values():
            yield seen.between.writer.source, seen.arrive
            yield seen.between.writer.node, seen.bend
            yield seen.activation_node, partial(on_gradient, callback=seen.leave)

    def results(self) -> dict[str, SplittingIndex]:
        """By group, what was seen so far.

        Raises:
            SignalError: if no backward pass was seen.
        """
        return {name: seen.index() for name, seen in self._seen.items()}


def _curved(network: Network, group: Group) -> tuple[Between, str, nn.Module]:
    """Writer and reader of a group, and the activation that directly follows the writer.

    Raises:
        Declined: if it has several of either, or that activation is missing or piecewise linear.
    """
    found = between(network, group)
    return found, *_activation(network, found)


def _activation(network: Network, found: Between) -> tuple[str, nn.Module]:
    """The activation that directly follows the writer.

    Raises:
        Declined: if there is none, or it is piecewise linear.
    """
    writer = next(node for node in network.module.graph.nodes if node.name == found.writer.node)
    users = list(writer.users)
    if len(users) != 1 or not is_activation(network, users[0]):
        raise Declined(f"no activation follows `{found.writer.node}` directly")
    activation = _as_module(network, users[0])
    if activation is None or not bool(curvature(activation, torch.linspace(-4.03, 4.01, 64)).any()):
        raise Declined(f"the activation behind `{found.writer.node}` is piecewise linear, so its curvature is zero")
    return users[0].name, activation


def _as_module(network: Network, node: fx.Node) -> nn.Module | None:
    module = called_module(network.module, node)
    return as_module(module, node.target, node.args[1:], node.kwargs)


def curvature(activation: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """The second derivative of an elementwise function, by autograd."""
    with torch.enable_grad():
        inputs = values.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(inputs).sum(), inputs, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(values)
        (bend,) = torch.autograd.grad(slope.sum(), inputs, materialize_grads=True)
    return bend


def _basis(found: Between, most: int, generator: torch.Generator) -> torch.Tensor:
    """Orthonormal directions (count, inputs, *kernel) in which a unit's copies may part."""
    fan = found.writer.fan_in
    if fan <= most:
        return torch.eye(fan).reshape(fan, found.writer.inputs, *found.writer.kernel)
    drawn = torch.randn(fan, most, generator=generator)
    directions: torch.Tensor = torch.linalg.qr(drawn).Q.T
    return directions.reshape(most, found.writer.inputs, *found.writer.kernel)


class _Seen:
    def __init__(
        self, found: Between, activation_node: str, activation: nn.Module, basis: torch.Tensor, rows: int
    ) -> None:
        self.between = found
        self.activation_node = activation_node
        self._activation = activation
        self._basis = basis
        self._rows = rows
        self._inputs: torch.Tensor | None = None
        self._bend: torch.Tensor | None = None
        self._sum: torch.Tensor | None = None
        self._batches = 0

    def arrive(self, value: torch.Tensor) -> None:
        part = value.detach()[: self._rows]
        part = part if part.dtype == torch.float64 else part.float()
        self._inputs = self._by_sample(self.between.writer.apply(part, self._basis.to(part)))

    def bend(self, value: torch.Tensor) -> None:
        self._bend = curvature(self._activation, value.detach()[: self._rows])

    def leave(self, gradient: torch.Tensor) -> None:
        if self._inputs is None or self._bend is None:
            return
        weight = self._by_sample(gradient[: self._rows] * self._bend).to(self._inputs.dtype)
        matrices = torch.einsum("su,sd,se->ude", weight, self._inputs, self._inputs)
        matrices = matrices * (len(gradient) / min(len(gradient), self._rows))
        self._sum = matrices if self._sum is None else self._sum + matrices
        self._inputs = self._bend = None
        self._batches += 1

    def index(self) -> SplittingIndex:
        if self._sum is None:
            name = self.between.group
            raise SignalError(f"no gradient of `{name}` was seen; run loss.backward() while the model is watched")
        values = torch.linalg.eigvalsh(self._sum.double() / self._batches)
        return SplittingIndex(self.between.group, values[:, 0].cpu(), self._batches)

    def _by_sample(self, values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, positions...) or (batch, ..., channels) -> (samples, channels)."""
        return (values.movedim(1, -1) if self.between.writer.kernel else values).flatten(0, -2)
