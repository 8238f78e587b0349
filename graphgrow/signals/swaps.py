"""What another activation would bring: the loss's slope in its share, before the exchange is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from graphgrow.blocks.activations import ACTIVATIONS, as_module, name_of
from graphgrow.errors import Declined, SignalError
from graphgrow.ir.called import called_module
from graphgrow.network.junctions import is_activation
from graphgrow.network.network import Network
from graphgrow.signals.watch import Callback, on_gradient

USUAL = ("relu", "gelu", "silu", "elu", "tanh")


@dataclass(frozen=True)
class SwapScore:
    """The slope of the loss in the share s of a new activation, at s = 0.

    Attributes:
        site: of the activation.
        to: the new activation's name.
        slope: dL/ds, a mean over batches; negative where a share of the new one lowers the loss.
        error: standard error of that mean, infinite after one batch.
        batches: that were seen.
    """

    site: str
    to: str
    slope: float
    error: float
    batches: int

    @property
    def mutation(self) -> str:
        """The mutation that makes the exchange."""
        return f"swap-activation({self.site}, to={self.to})"


class SwapSignal:
    """Slopes dL/ds of the blend (1 - s) f(x) + s g(x) at s = 0, streamed from training batches.

    They are E[<dL/dy, g(x) - f(x)>] with y = f(x): the gradient that the share gets in the first step after
    `swap-activation`, as architecture gradients are in DARTS (Liu, Simonyan and Yang, ICLR 2019).

    Args:
        network: that is run.
        sites: of activations; none given: all.
        to: names of new activations; the present one is left out.
        rows: at most so many of each batch are used.

    Raises:
        SignalError: if a name is unknown, or is `prelu`, which comes by a slope of its own and not by a share.
        Declined: if a site is no activation that can be blended.
    """

    def __init__(
        self, network: Network, sites: Iterable[str] | None = None, to: Sequence[str] = USUAL, *, rows: int = 16
    ) -> None:
        unknown = [name for name in to if name not in ACTIVATIONS or name == "prelu"]
        if unknown:
            known = ", ".join(name for name in ACTIVATIONS if name != "prelu")
            raise SignalError(f"no share can be measured of {', '.join(unknown)}; there are {known}")
        self._sites = [site for site in _sites(network, sites, to, rows) if site.candidates]

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """What each activation reads, and the gradient of what it puts out."""
        for site in self._sites:
            yield site.source, site.arrive
            yield site.node, partial(on_gradient, callback=site.leave)

    def results(self) -> list[SwapScore]:
        """The scores so far, the steepest fall of the loss first.

        Raises:
            SignalError: if no backward pass was seen.
        """
        return sorted((score for site in self._sites for score in site.scores()), key=lambda score: score.slope)


def _sites(network: Network, names: Iterable[str] | None, to: Sequence[str], rows: int) -> list[_Site]:
    found = []
    nodes = network.module.graph.nodes if names is None else [network.sites.find(name) for name in names]
    assert network.analysis.facts  # every node has its example value now
    for node in nodes:
        wanted = node.op.startswith("call") and is_activation(network, node)
        module = called_module(network.module, node) if wanted else None
        present = as_module(module, node.target, node.args[1:], node.kwargs) if wanted else None
        if present is None:
            if names is not None:
                raise Declined(f"`{network.sites.name(node)}` is no activation that can be blended")
            continue
        candidates = {name: ACTIVATIONS[name]() for name in to if name != name_of(present)}
        name, source = network.sites.name(node), node.all_input_nodes[0].name
        found.append(_Site(name, node.name, source, present, candidates, rows))
    return found


class _Site:
    def __init__(
        self, name: str, node: str, source: str, present: nn.Module, candidates: dict[str, nn.Module], rows: int
    ) -> None:
        self.name = name
        self.node = node
        self.source = source
        self.candidates = candidates
        self._present = present
        self._rows = rows
        self._arriving: torch.Tensor | None = None
        self._slopes: list[torch.Tensor] = []

    def arrive(self, value: torch.Tensor) -> None:
        self._arriving = value.detach()[: self._rows].clone()  # an activation in place would overwrite it

    def leave(self, gradient: torch.Tensor) -> None:
        if self._arriving is None:
            return
        with torch.no_grad():
            old = self._present(self._arriving)
            part = gradient[: self._rows]
            shares = [(part * (new(self._arriving) - old)).double().sum() for new in self.candidates.values()]
        self._slopes.append(torch.stack(shares) * (len(gradient) / len(part)))
        self._arriving = None

    def scores(self) -> list[SwapScore]:
        if not self._slopes:
            raise SignalError(f"no gradient of `{self.name}` was seen; run loss.backward() while the model is watched")
        slopes = torch.stack(self._slopes).cpu()
        count = len(slopes)
        errors = slopes.std(0) / math.sqrt(count) if count > 1 else torch.full((slopes.shape[1],), math.inf)
        columns = zip(self.candidates, slopes.mean(0).tolist(), errors.tolist(), strict=True)
        return [SwapScore(self.name, to, slope, error, count) for to, slope, error in columns]
