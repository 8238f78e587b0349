"""gg.grow_to: grow a model into the shapes of a larger sibling, and load the result into that."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from graphgrow.bulk.demands import Demand, demands, tails
from graphgrow.bulk.fit import Fit
from graphgrow.bulk.lineage import Lineage
from graphgrow.bulk.widening import widening
from graphgrow.capture.trace import capture
from graphgrow.errors import CaptureError, Declined, NotPreserved, Unsupported
from graphgrow.graph import Graph
from graphgrow.network.describe import counted
from graphgrow.network.network import Network, require_network
from graphgrow.planning.statistics import growing_axis
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.text import parse_mutation
from graphgrow.verification.copies import double_module, double_network, refill

TOLERANCE = 1e-10
"""Admitted error relative to the largest output, in float64."""

SLACK = 32.0
"""Admitted multiple of the rounding noise, where a model computes parts in a narrower type: of the growth's and of what
the target's own code rounds."""

NOISE = 1e-5
"""What may count as rounding noise at most, relative to the largest output."""

FLOOR = 1e-3
"""The largest output counts as at least this, as behind a head of zeros; the lively weights are for such models."""


@dataclass(frozen=True)
class Grown:
    """A model grown into a larger sibling; prints what was done.

    Attributes:
        graph: the grown graph; it shares no tensor with `model`.
        model: the target, which now computes what the graph computes.
        mutations: that were applied, in order.
        settings: attributes of the model that were changed (`norm.eps`): no state_dict holds them, so that whoever
            builds the model anew must set them again.
        untouched: names of the model's tensors that its forward does not use; they are as they were.
        max_error: the largest error of the model's outputs in float64, relative to the largest of them.
        own: paths of the model's blocks that the graph has nothing like and does not get: with their last maps at zero
            they pass their input on, or columns of zeros read them; their other numbers are as they were.
    """

    graph: Graph
    model: nn.Module
    mutations: tuple[Mutation, ...]
    settings: Mapping[str, float]
    untouched: tuple[str, ...]
    max_error: float
    own: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        head = (
            f"grown to {type(self.model).__name__} with {count:,} parameters by "
            f"{counted(len(self.mutations), 'mutation')}; largest error {self.max_error:.1e} of the largest output"
        )
        lines = [head, *(f"  {mutation}" for mutation in self.mutations)]
        alike: dict[tuple[str, float], list[str]] = {}
        for place, value in self.settings.items():
            alike.setdefault((place.rpartition(".")[2], value), []).append(place.rpartition(".")[0])
        for (attribute, value), paths in alike.items():
            lines += [f"set, since no state_dict holds it: {attribute} = {value:.6g} of {', '.join(paths)}"]
        if self.own:
            lines += [f"the model's own, closed or read by zeros: {', '.join(self.own)}"]
        if self.untouched:
            lines += [f"left as they were, since nothing uses them: {', '.join(self.untouched)}"]
        return "\n".join(lines)


def grow_to(
    graph: Graph,
    target_model: nn.Module,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
) -> Grown:
    """Grow a model into the shapes of a larger one of the same class, and load the result into that.

        done = gg.grow_to(gg.trace(small, images), large)  # large(images) is small(images) now; done.graph is the graph

    Training then goes on in code of one's own, with the larger model and its state_dict. The target is captured with
    the graph's example inputs; what is wider in it is widened (heads and head widths by the target's own numbers), or
    split where only whole copies are exact; blocks of which it has more are copies that start as identity, spread
    evenly (Wu et al., "LLaMA Pro", 2024), or all behind the last one where the target's blocks are of several kinds in
    turn. A stage without a block that could be copied keeps the target's own further blocks, closed by zeros, and a
    dense block its further layers, read by zeros; the grown graph does not get these. Further plain layers behind a
    ReLU start as identity. The growth is carried out in float64 first, on the graph's weights and on lively random
    ones, and the target's own code is compared with the graph, in eval mode; nothing is changed before that has passed.

    The larger model's own constants must be those of the smaller one, or attributes called eps: a norm's eps follows
    (it is set on the target's modules), attention's default scale does not. So give the target more heads of the same
    width, not wider ones.

    Args:
        graph: the small model; it is not changed.
        target_model: the larger one, of any values; loaded in place. On the meta device it gets memory first, on the
            device of the graph's inputs.
        seed: of the fresh weights.
        optimizer: over the parameters of the graph; carried over in place, as `gg.apply` does, to the parameters of
            `target_model`.
        leaves: as they were given to `gg.trace` for the small model.

    Returns:
        The grown graph, the target model, and what was done.

    Raises:
        Unsupported: if the shapes cannot be reached; names the first parameters that do not fit, and why.
        NotPreserved: if the target's own code computes something else, with the measured error.
        CaptureError: if the target cannot be captured as the graph was.
        OptimizerError: as `gg.apply`.
    """
    require_network(graph, "gg.grow_to")
    _refuse_empty(graph, target_model)
    growth = _Growth.of(graph, target_model, seed, leaves)
    try:
        max_error = growth.measured()
    except NotPreserved:
        other = growth.with_copies_at_end()
        if other is None:
            raise
        growth, max_error = other, other.measured()
    grown = growth.carried_out(graph, optimizer)
    fit = growth.fit(grown, target_model)
    fit.load(grown, target_model)
    if optimizer is not None:
        fit.hand_over(optimizer, grown, target_model)
    return Grown(
        grown,
        target_model,
        growth.mutations,
        fit.settings,
        fit.untouched,
        max_error,
        tuple(graft.path for graft in fit.grafts),
    )


@dataclass(frozen=True)
class _Growth:
    """The way from a graph to its target: found once, carried out on several copies."""

    graph: Graph
    model: nn.Module
    target: Network
    lineage: Lineage
    wider: tuple[Demand, ...]
    mutations: tuple[Mutation, ...]
    seed: int

    @classmethod
    def of(cls, graph: Graph, model: nn.Module, seed: int, leaves: Sequence[type[nn.Module] | str]) -> _Growth:
        """Find the mutations; raises as `grow_to`."""
        device = next(model.parameters()).device
        args, kwargs = graph.inputs.sample(seed, device=device)
        try:
            found = capture(model, args, kwargs, leaves, graph.way)
        except CaptureError as error:
            raise CaptureError(
                f"the target does not take what the graph takes, or cannot be captured: {error}"
            ) from error
        target = Network(found.module, found.inputs)
        return cls._along(Lineage.of(graph, target, model.state_dict()), graph, model, target, seed)

    @classmethod
    def _along(cls, lineage: Lineage, graph: Graph, model: nn.Module, target: Network, seed: int) -> _Growth:
        joined = frozenset(space for graft in lineage.grafts for space in graft.joined)
        wider = demands(graph, target, lineage.origins, joined)
        texts = [_text(graph, demand) for demand in wider]
        # widths first: copies made after that have the grown shapes
        texts += [f"deepen({site}, kind=copy)" for site in lineage.sites]
        texts += [f"deepen({site}, kind=layer)" for sites in lineage.layers.values() for site in sites]
        return cls(graph, model, target, lineage, tuple(wider), tuple(map(parse_mutation, texts)), seed)

    def with_copies_at_end(self) -> _Growth | None:
        """The same with every copy behind the last block of its run; None where that is no difference."""
        lineage = Lineage.of(self.graph, self.target, self.model.state_dict(), at_end=True)
        if lineage.sites == self.lineage.sites:
            return None
        return self._along(lineage, self.graph, self.model, self.target, self.seed)

    def carried_out(self, graph: Graph, optimizer: Optimizer | None = None) -> Graph:
        try:
            return apply(graph, self.mutations, seed=self.seed, optimizer=optimizer)
        except Declined as declined:
            raise Unsupported(f"this graph cannot grow into the target: {declined}") from declined

    def fit(self, grown: Graph, model: nn.Module) -> Fit:
        grafts = self.lineage.grafts
        more = tails(self.graph, self.target, self.lineage.origins, frozenset(s for g in grafts for s in g.joined))
        return Fit.of(grown, self.target, model, self.lineage.paths(grown, self.target), grafts, more)

    def measured(self) -> float:
        """The target's own code against the graph, in float64, on the graph's weights and on lively ones.

        Weights that hide everything behind a head of zeros would pass any test; the lively ones do not.

        Raises:
            NotPreserved: if the outputs differ by more than rounding.
        """
        own = double_network(self.graph)
        return max(self._error(own), self._error(refill(own, self.seed)))

    def _error(self, small: Graph) -> float:
        grown = self.carried_out(small)
        model = _placed(double_module(self.model), small.inputs.device)
        fit = self.fit(grown, model)
        fit.load(grown, model)
        args, kwargs = small.inputs.sample(self.seed)
        before, exact, after = (_outputs(module, args, kwargs) for module in (small.module, grown.module, model))
        reached = _largest(before)
        scale = max(FLOOR, reached)
        if not math.isfinite(reached):  # a NaN among two numbers may be neither the larger nor the smaller one
            raise NotPreserved("the outputs are not finite, so that nothing can be compared; restore the weights first")
        noise, error = _gap(before, exact), _gap(before, after)
        if noise > NOISE * scale:
            raise NotPreserved(f"the growth itself changes the outputs by {noise:.2g}, where they reach {scale:.2g}")
        bound = max(TOLERANCE * scale, SLACK * noise)
        if not error <= bound:
            bound = max(bound, SLACK * self._rounding(fit, grown, model, after, NOISE * scale))
        if not error <= bound:
            raise NotPreserved(
                f"{type(self.model).__name__} with the grown weights differs from the graph by {error:.2g}, where the "
                f"outputs reach {scale:.2g} and {bound:.2g} is allowed: {self._suspicion()}"
            )
        return error / scale

    def _rounding(self, fit: Fit, grown: Graph, model: nn.Module, after: Sequence[torch.Tensor], most: float) -> float:
        """What the target's own code rounds in float64, as its casts to float32 do; 0 where it is above `most`.

        The code is compared with the capture of it, which casts to float64 there, on the same numbers. A mistake of
        the growth would be in both.
        """
        twin = double_network(self.target)
        fit.load_graph(grown, model, twin)
        args, kwargs = grown.inputs.sample(self.seed)
        rounding = _gap(_outputs(twin.module, args, kwargs), after)
        return rounding if rounding <= most else 0.0

    def _written_out(self) -> str | None:
        """A node that takes a mean of units that grow, as norms do that are no layers."""
        spaces = [self.graph.group(demand.group).space for demand in self.wider]
        for facts in self.graph.analysis.facts.values():
            for statistic in facts.statistics:
                if any(growing_axis(statistic, space) is not None for space in spaces):
                    return facts.node.name
        return None

    def _suspicion(self) -> str:
        stretched = next((demand for demand in self.wider if demand.label == "head_width"), None)
        if stretched is None:
            written_out = self._written_out()
            if written_out is not None and self.graph.way == "fx":
                return (
                    f"the statistic at `{written_out}` is rescaled in the graph alone; capture the small model with "
                    'gg.trace(..., way="dynamo"), which makes one layer of an RMS norm that is written out'
                )
            return "its own code depends on a size, or on a constant that is another than in the small model"
        return (
            f"`{stretched.group}` grows, and attention scales by its width; give the target more heads of the same "
            "width instead"
        )


def _text(graph: Graph, demand: Demand) -> str:
    """The mutation that meets a demand.

    Raises:
        Unsupported: if there is none that is exact.
    """
    try:
        return widening(graph, graph.group(demand.group), demand.extra)
    except Declined as declined:
        asks = f"`{demand.name}` of the target asks for what this graph cannot do"
        raise Unsupported(f"{asks}: widen({demand.group}, extra={demand.extra}): {declined}") from declined


def _refuse_empty(graph: Graph, model: nn.Module) -> None:
    """What is no pair of a graph with weights and a model with parameters of the same dtypes."""
    if not isinstance(model, nn.Module):
        raise Unsupported(f"the target is {type(model).__name__}; grow_to wants an nn.Module")
    if next(model.parameters(), None) is None:
        raise Unsupported(f"the target {type(model).__name__} has no parameters; build it first")
    if any(parameter.is_meta for parameter in graph.module.parameters()):
        raise Unsupported("the graph is on the meta device and has no weights to keep; trace a model that has")
    mine, theirs = ({p.dtype for p in module.parameters() if p.is_floating_point()} for module in (graph.module, model))
    if mine != theirs:
        left, right = (", ".join(sorted(str(dtype) for dtype in dtypes)) for dtypes in (theirs, mine))
        raise Unsupported(f"the target's parameters are {left} and the graph's {right}; convert one of them first")


def _placed(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on that device; one without data stays as it is, and gets memory there when it is loaded."""
    return module if any(parameter.is_meta for parameter in module.parameters()) else module.to(device)


def _outputs(module: nn.Module, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The floating-point outputs in eval mode."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        result = module.eval()(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def _largest(outputs: Sequence[torch.Tensor]) -> float:
    return max((float(output.abs().max()) for output in outputs), default=0.0)


def _gap(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """The largest difference; infinite where number or shapes of the outputs are others."""
    if [output.shape for output in before] != [output.shape for output in after]:
        return math.inf
    return _largest([a - b for a, b in zip(after, before, strict=True)])
