"""upcycle-experts: an MLP becomes a mixture of equal experts."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import fx

from graphgrow.blocks.activations import as_module
from graphgrow.blocks.routing import Routing
from graphgrow.errors import Declined, GraphGrowError, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.ir.meta import STACK
from graphgrow.layers import Router
from graphgrow.network.attentions import attentions
from graphgrow.network.neighbours import parameters_of
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.insert import Insertion
from graphgrow.rewrite.region import Region, copy_region

MOST_NODES = 24  # of an MLP, that hold tensors: a longer module is a block of several
_NOISE = ("dropout", "stochastic_depth", "stochasticdepth", "droppath", "drop_path")


@dataclass(frozen=True)
class UpcycleExperts(Mutation):
    """Make a mixture of experts of an MLP: copies of it, and a router that gives each token shares of `top_k` of them.

    The shares add up to 1 and all experts are equal, so that the sum is what the MLP put out (Komatsuzaki et al.,
    "Sparse upcycling", 2023, arXiv:2212.05055); the router starts random, since equal scores would starve experts.
    Experts part at the first step, since each sees its own tokens; from then on the router has a gradient. Every expert
    runs on every token, those not chosen with share 0. Exact in eval and train mode; in eval mode alone where dropout
    inside the MLP draws a mask for each expert.

    Attributes:
        site: the path of a module on features (..., C), plain or gated.
        experts: how many there will be, at least 2.
        top_k: how many are chosen for a token.
    """

    site: str
    experts: int = 4
    top_k: int = 2
    name: ClassVar[str] = "upcycle-experts"
    summary: ClassVar[str] = "an MLP becomes a mixture of equal experts"

    @classmethod
    def sites(cls, network: Network) -> Iterator[UpcycleExperts | Refusal]:
        """Every innermost module with two linear maps and an activation, and no attention."""
        inside: dict[str, list[fx.Node]] = {}
        for node in network.module.graph.nodes:
            for path, _ in (node.meta.get(STACK) or {}).values():
                inside.setdefault(str(path), []).append(node)
        attending = {attention.node for attention in attentions(network)}
        found = [
            path
            for path, nodes in inside.items()
            if path and _tensors(nodes) <= MOST_NODES and not attending & set(nodes) and _is_mlp(network, nodes)
        ]
        for path in found:
            if any(other.startswith(f"{path}.") for other in found):
                continue
            try:
                _parts(network, path)
            except GraphGrowError as declined:
                yield Refusal(path, str(declined))
                continue
            yield cls(path)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Put the experts beside the MLP, and the router in front of them."""
        if self.experts < 2 or not 1 <= self.top_k <= self.experts:
            raise MutationError(
                f"experts={self.experts}, top_k={self.top_k}: at least 2 experts are wanted, and 1 to all are chosen"
            )
        _, noisy = _parts(network, self.site)
        region = Region.of(editor.module.graph, self.site)
        stream = _stream(region)
        insertion = Insertion(network, editor, self.site, self.name, generator)
        insertion.behind(region.result)
        width, count, chosen = stream.meta["value"].shape[-1], self.experts, self.top_k
        shares = insertion.inline(insertion.make(lambda: Routing(width, count, chosen)), [stream])
        mixed: fx.Node | None = None
        for number in range(count):
            expert = region.result
            if number:
                expert = copy_region(insertion, region, stream, stream, f"{insertion.path}.experts.{number}")
            share = insertion.add("call_function", operator.getitem, (shares, (..., slice(number, number + 1))))
            part = insertion.add("call_function", operator.mul, (share, expert))
            mixed = part if mixed is None else insertion.add("call_function", operator.add, (mixed, part))
        assert mixed is not None
        insertion.carry_on(region.result, mixed)
        step = insertion.step()
        held = {id(p) for node in region.nodes for p in parameters_of(editor.module, node)}
        shared = tuple(name for name, p in editor.module.named_parameters() if id(p) in held)  # one expert of several
        modes = frozenset({"eval"}) if noisy else step.exact_in
        return replace(step, exact_in=modes, touched=(*step.touched, *shared)), []


def _parts(network: Network, path: str) -> tuple[Region, bool]:
    """The module's part of the graph, and whether something in it is dropped at random in train mode.

    Raises:
        Declined: if it cannot be an expert.
    """
    region = Region.of(network.module.graph, path)
    stream, result = _stream(region), region.result.meta["value"]
    before = stream.meta["value"]
    if before.dim() < 2 or result.dim() != before.dim() or before.shape[:-1] != result.shape[:-1]:
        raise Declined(f"`{path}` turns {tuple(before.shape)} into {tuple(result.shape)}, no features of each token")
    if not result.is_floating_point() or result.dtype != before.dtype:
        raise Declined(f"`{path}` turns {before.dtype} into {result.dtype}")
    if stream in region.written_inputs(network.module):
        raise Declined(f"`{path}` overwrites its input, which every expert reads")
    if any((node.op, node.target) == ("call_method", "detach") for node in region.nodes):
        raise Declined(f"`{path}` is computed without gradients, so that no expert would learn")
    if any(isinstance(called_module(network.module, node), Router) for node in region.nodes):
        raise Declined(f"`{path}` is a mixture of experts already")
    if any(noise.always for node in region.nodes for noise in network.analysis.facts[node].noises):
        raise Declined(f"`{path}` drops elements in eval mode too, and each expert would drop its own")
    return region, any(_drops(network, node) for node in region.nodes)


def _stream(region: Region) -> fx.Node:
    """The one activation that flows in.

    Raises:
        Declined: if there are several.
    """
    tensors = [node for node in region.inputs if isinstance(node.meta.get("value"), torch.Tensor)]
    flowing = [node for node in tensors if node.op != "get_attr"]
    if len(flowing) != 1:
        raise Declined(f"{len(flowing)} tensors flow into `{region.path}`; an expert reads one")
    return flowing[0]


def _tensors(nodes: list[fx.Node]) -> int:
    return sum(isinstance(node.meta.get("value"), torch.Tensor) for node in nodes)


def _is_mlp(network: Network, nodes: list[fx.Node]) -> bool:
    maps = [node for node in nodes if any(p.dim() == 2 for p in _held(network, node))]
    wide = [node for node in nodes if any(p.dim() > 2 for p in _held(network, node))]
    acts = [node for node in nodes if as_module(called_module(network.module, node), node.target, (), {}) is not None]
    return len(maps) >= 2 and not wide and bool(acts)


def _held(network: Network, node: fx.Node) -> list[torch.nn.Parameter]:
    own = parameters_of(network.module, node)
    fetched = [p for used in node.all_input_nodes if used.op == "get_attr" for p in parameters_of(network.module, used)]
    return own + fetched


def _drops(network: Network, node: fx.Node) -> bool:
    """Whether a node drops anything at random in train mode."""
    module = called_module(network.module, node)
    name = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
    if not any(word in name.lower() for word in _NOISE):
        return bool(network.analysis.facts[node].noises)
    rate = getattr(module, "p", getattr(module, "drop_prob", 1.0)) if module is not None else 1.0
    return rate is None or float(rate) > 0
