"""How new units start: as the passes make them, along gradients, or in ways that do not preserve the function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph

PRESERVING = ("fresh", "variance", "directions")
KINDS = (*PRESERVING, "he", "noise")


@dataclass(frozen=True, eq=False)
class Start:
    """How what is new starts, once a child has been made and verified.

    Attributes:
        kind: "fresh": as the pass made it. "variance": fresh incoming weights are scaled to the root mean square of
            the trained ones beside them (variance transfer, Yuan et al., "Accelerated training via incrementally
            growing neural networks", NeurIPS 2023). "directions": incoming weights are those given. These three change
            nothing, since what reads new units is zero. "he": what reads new units is fresh as well. "noise": Gaussian
            noise on all copies and their readers. These two change the function, and the change is measured.
        size: standard deviation of the noise, over the root mean square of the tensor.
        incoming: for "directions", by name of the parameter, the rows for its new units (units, ...), of norm 1.
    """

    kind: str = "fresh"
    size: float = 0.1
    incoming: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TrainingError(f"there is no start {self.kind!r}; there are {', '.join(KINDS)}")

    @property
    def preserving(self) -> bool:
        """Whether the function stays what it is."""
        return self.kind in PRESERVING

    def apply(
        self, parent: Graph, child: Graph, new: Mapping[str, torch.Tensor], generator: torch.Generator
    ) -> float | None:
        """Set the new entries, in place.

        Args:
            parent: the network before.
            child: after its mutations.
            new: by name of a parameter, which of its entries are new.
            generator: on the CPU.

        Returns:
            How far the outputs moved over how large they were, on random inputs in eval mode; None for a start that
            moves none.
        """
        if self.kind == "fresh":
            return None
        with torch.no_grad():
            if self.kind == "noise":
                self._disturb(parent, child, generator)
            for name, entries in new.items():
                parameter = child.module.get_parameter(name)
                if self.kind == "variance":
                    _match(parameter, entries)
                elif self.kind == "directions" and name in self.incoming:
                    _direct(parameter, entries, self.incoming[name])
                elif self.kind == "he":
                    _open(parameter, entries, generator)
            return None if self.preserving else _gap(parent, child)

    def _disturb(self, parent: Graph, child: Graph, generator: torch.Generator) -> None:
        """Noise on every tensor that a mutation replaced."""
        before = dict(parent.module.named_parameters())
        for name, parameter in child.module.named_parameters():
            if before.get(name) is not parameter:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(noise * (self.size * parameter.square().mean().sqrt()))


def _match(parameter: nn.Parameter, entries: torch.Tensor) -> None:
    """Scale new entries that are not zero to the root mean square of the old ones."""
    fresh, old = parameter[entries], parameter[~entries]
    if len(old) == 0 or parameter.dim() < 2 or not bool(fresh.any()):
        return
    fresh_size = fresh[fresh != 0].square().mean().sqrt()
    parameter[entries] = fresh * (old.square().mean().sqrt() / fresh_size)


def _direct(parameter: nn.Parameter, entries: torch.Tensor, rows: torch.Tensor) -> None:
    """Put rows in the place of new rows, each with the norm that the present one has.

    What they read may have grown in the same stage; the new inputs are left as they are.
    """
    whole = entries.flatten(1).all(1)
    places = whole.nonzero().flatten()[: len(rows)]
    known = ~entries[~whole].transpose(0, 1).flatten(1).any(1)
    if int(known.sum()) != rows.shape[1]:
        raise TrainingError(f"rows over {rows.shape[1]} inputs do not fit the {int(known.sum())} that are not new")
    inputs = known.nonzero().flatten()
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


def _gap(parent: Graph, child: Graph) -> float:
    args, kwargs = parent.inputs.sample()
    outputs = [_output(graph.module, args, kwargs) for graph in (parent, child)]
    size = float(outputs[0].double().norm())
    return float((outputs[1] - outputs[0]).double().norm()) / max(size, 1e-30)


def _output(module: nn.Module, args: Any, kwargs: Any) -> torch.Tensor:
    from torch.utils import _pytree as pytree

    training = module.training
    module.eval()
    try:
        leaves = [leaf for leaf in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
    finally:
        module.train(training)
    return torch.cat([leaf.flatten().float() for leaf in leaves])
