"""How new units start: as the passes make them, along gradients, or in ways that do not preserve the function."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph

PRESERVING = ("fresh", "variance", "directions")
KINDS = (*PRESERVING, "he", "noise")


@dataclass(frozen=True, eq=False)
class Start:
    """How what is new starts.

    Attributes:
        kind: "fresh": as the pass made it. "variance": fresh incoming weights are scaled to the root mean square of
            the trained ones beside them (variance transfer, Yuan et al., "Accelerated training via incrementally
            growing neural networks", NeurIPS 2023). "directions": incoming weights are those given. These three change
            nothing, since what reads new units is zero or cancels; what a pass did not draw, as the mean rows in front
            of a layer norm, they leave as it is. "he": what reads new units is
            fresh as well. "noise": Gaussian noise on all copies and their readers. These two change the function, and
            the change is measured.
        size: standard deviation of the noise, over the root mean square of the tensor.
        incoming: for "directions", by name of the parameter, the rows for its new units (units, ...), of norm 1.
        columns: which of those parameters hold one unit a column.
    """

    kind: str = "fresh"
    size: float = 0.1
    incoming: Mapping[str, torch.Tensor] = field(default_factory=dict)
    columns: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TrainingError(f"there is no start {self.kind!r}; there are {', '.join(KINDS)}")

    @property
    def preserving(self) -> bool:
        """Whether the function stays what it is."""
        return self.kind in PRESERVING

    def prepare(self, child: Graph, new: Mapping[str, torch.Tensor], drawn: Mapping[str, torch.Tensor]) -> None:
        """Set what has been drawn, in place, if this start preserves the function; others leave all as it is.

        Args:
            child: a network after its mutations.
            new: by name of a parameter, which of its entries are new (`Newness.entries`).
            drawn: which of them have been drawn (`drawn_entries`).
        """
        with torch.no_grad():
            for name, free in drawn.items():
                parameter = child.module.get_parameter(name)
                if self.kind == "variance":
                    _match(parameter, free, ~new[name])
                elif self.kind == "directions" and name in self.incoming:
                    held: tuple[torch.Tensor, ...] = parameter, new[name], free
                    if name in self.columns:
                        held = tuple(one.T for one in held)
                    _direct(held[0], held[1], held[2], self.incoming[name])

    def disturb(
        self, parent: Graph, child: Graph, new: Mapping[str, torch.Tensor], generator: torch.Generator
    ) -> float | None:
        """Set the new entries, in place, if this start does not preserve the function.

        Args:
            parent: the network before.
            child: after its mutations.
            new: by name of a parameter, which of its entries are new.
            generator: on the CPU.

        Returns:
            How far the outputs moved over how large they were, on random inputs in eval mode; None for a start that
            moves none.
        """
        if self.preserving:
            return None
        with torch.no_grad():
            if self.kind == "noise":
                self._disturb(parent, child, generator)
            else:
                for name, entries in new.items():
                    _open(child.module.get_parameter(name), entries, generator)
            return distance(output_of(parent), output_of(child))

    def _disturb(self, parent: Graph, child: Graph, generator: torch.Generator) -> None:
        """Noise on every tensor that a mutation replaced."""
        before = dict(parent.module.named_parameters())
        for name, parameter in child.module.named_parameters():
            if before.get(name) is not parameter:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(noise * (self.size * parameter.square().mean().sqrt()))


def _match(parameter: nn.Parameter, drawn: torch.Tensor, known: torch.Tensor) -> None:
    """Scale what has been drawn to the root mean square of the old entries, all by one factor."""
    if parameter.dim() < 2 or not bool(known.any()):
        return
    size, old = (parameter[entries].square().mean().sqrt() for entries in (drawn, known))
    parameter[drawn] = parameter[drawn] * (old / size)


def _direct(parameter: torch.Tensor, new: torch.Tensor, drawn: torch.Tensor, rows: torch.Tensor) -> None:
    """Put rows in the place of new rows that were drawn, each with the norm that the present one has.

    What they read may have grown in the same stage; the new inputs are left as they are.
    """
    whole = new.flatten(1).all(1)
    known = ~new[~whole].transpose(0, 1).flatten(1).any(1)
    if int(known.sum()) != rows.shape[1]:
        raise TrainingError(f"rows over {rows.shape[1]} inputs do not fit the {int(known.sum())} that are not new")
    inputs = known.nonzero().flatten()
    free = whole & drawn[:, inputs].flatten(1).all(1)
    places = free.nonzero().flatten()[: len(rows)]
    present = parameter[places[:, None], inputs]
    norms = present.flatten(1).norm(dim=1).reshape(-1, *(1,) * (parameter.dim() - 1))
    parameter[places[:, None], inputs] = rows[: len(places)].to(parameter) * norms


def _open(parameter: nn.Parameter, entries: torch.Tensor, generator: torch.Generator) -> None:
    """Give zero entries of a weight He's deviation at its fan."""
    closed = entries & (parameter == 0)
    if parameter.dim() < 2 or not bool(closed.any()):
        return
    fan = parameter[0].numel()
    drawn = torch.randn(parameter.shape, generator=generator).to(parameter) * (2.0 / fan) ** 0.5
    parameter[closed] = drawn[closed]


def output_of(graph: Graph) -> torch.Tensor:
    """All outputs in eval mode on random inputs, the same for each network of one base, flat.

    A graph of train mode alone is run in that, on a copy, with equal draws.
    """
    args, kwargs = graph.inputs.sample()
    still = "eval" in graph.modes
    module = graph.module if still else copy.deepcopy(graph.module)
    training = module.training
    module.train(not still)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            leaves = pytree.tree_leaves(module(*args, **kwargs))
    finally:
        module.train(training)
    tensors = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves if torch.is_tensor(leaf)]
    return torch.cat([tensor.flatten() for tensor in tensors if tensor.is_floating_point()])


def distance(before: torch.Tensor, after: torch.Tensor) -> float:
    """How far outputs have moved, over how large they were."""
    return float((after.double() - before.double()).norm()) / max(float(before.double().norm()), 1e-30)
