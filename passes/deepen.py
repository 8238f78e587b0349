"""deepen: put a residual block, or a layer that starts as identity, behind a value."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import fx, nn

from graphgrow.blocks.block import Block
from graphgrow.blocks.connection import GatedSkip
from graphgrow.blocks.residual import AttentionBlock, ConvBlock, IdentityLayer, MlpBlock, RepeatedLayer
from graphgrow.blocks.style import Style
from graphgrow.errors import Declined, GraphGrowError, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.ir.terms import leaves
from graphgrow.ir.value import Value
from graphgrow.network.causality import is_attention, must_be_causal
from graphgrow.network.channels import Channels, Layout
from graphgrow.network.junctions import junctions
from graphgrow.network.neighbours import is_batch_norm, parameters_of
from graphgrow.network.network import Network, Step
from graphgrow.network.overflow import first_infinite, refuse_infinite
from graphgrow.rewrite.closing import close_branches, idempotent_kind, open_ones, set_to_zero, turned_from
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.insert import Insertion
from graphgrow.rewrite.region import Region, copy_region

KINDS = ("auto", "conv", "mlp", "attention", "copy", "identity", "layer")


@dataclass(frozen=True)
class Deepen(Mutation):
    """Put a block behind the value of a site, which computes the identity at the start.

    - `conv`: x + conv(act(norm(conv(x)))) on maps (N, C, positions...), the second convolution zero.
    - `mlp`: x + linear(act(linear(norm(x)))) on features (..., C), the second linear map zero.
    - `attention`: x + output(attention(norm(x))) on tokens (N, L, C), the output projection zero. It is causal unless
      the model is seen to let tokens look at later ones.
    - `copy`: the module of that path once more, with the values of its weights; the last map of each of its residual
      branches is zero (Wu et al., "LLaMA Pro", 2024). Where it is not residual (post-norm), it is added behind a gate
      that starts at zero.
    - `identity`: a square map that starts as identity, and a PReLU of slope 1 (Net2Net's deepening).
    - `layer`: behind an activation that changes nothing a second time, as ReLU: a square map that starts as identity,
      of the kernel of the map in front, and that activation once more. So plain convolutional nets and MLPs get a layer
      like those that they have.
    - `auto`: conv on maps, mlp on features.

    Norms and activations are those of the nearest modules. Exact in eval and train mode.

    Attributes:
        site: a module path, or an operator as `module:add`.
        kind: one of the above.
        hidden: width inside the block; 0 for as many as there are channels (conv), twice as many (mlp).
        heads: attention heads; 0 for as many as divide the width with at least 16 units for each, 8 at most.
    """

    site: str
    kind: str = "auto"
    hidden: int = 0
    heads: int = 0
    name: ClassVar[str] = "deepen"
    summary: ClassVar[str] = "put a block behind a value that starts as identity"

    @classmethod
    def sites(cls, network: Network) -> Iterator[Deepen | Refusal]:
        """A copy of each module that can be copied; elsewhere a fresh block behind activations and sums."""
        for node in junctions(network):
            name = network.sites.name(node)
            copied = next((path for path in network.sites.containers(node) if _copyable(network, path)), None)
            if copied is not None:
                yield cls(copied, "copy")
                continue
            try:
                channels = network.channels.of(node)
            except Declined as declined:
                yield Refusal(name, str(declined))
                continue
            yield cls(name, _kind_for(channels))

    def varied(self, network: Network, draw: random.Random) -> Deepen:
        """As wide inside as there are channels, half as wide or twice; a copy stays a copy."""
        if self.kind not in ("conv", "mlp"):
            return self
        count = network.channels.of(network.sites.find(self.site)).count
        return replace(self, hidden=max(1, draw.choice((count // 2, count, 2 * count))))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Insert the block."""
        if self.kind not in KINDS:
            raise MutationError(f"kind={self.kind}: there are {', '.join(KINDS)}")
        if self.hidden < 0 or self.heads < 0:
            raise MutationError(f"hidden={self.hidden}, heads={self.heads}: a number of units or 0 is wanted")
        if (self.hidden and self.kind not in ("auto", "conv", "mlp")) or (self.heads and self.kind != "attention"):
            raise MutationError(f"{self}: `hidden` is for conv and mlp, `heads` for kind=attention")
        insertion = Insertion(network, editor, self.site, self.name, generator)
        if self.kind == "copy":
            _copy(network, insertion, self.site)
        else:
            site = network.sites.find(self.site)
            block = insertion.make(self._block(network, network.channels.of(site)))
            if site.users and all(is_batch_norm(network.module, reader) for reader in site.users):
                for path in block.closed:  # the norm would take it away again, and it would never learn
                    block.get_submodule(path).register_parameter("bias", None)
            insertion.carry_on(insertion.site, insertion.inline(block, [insertion.site]))
        return insertion.step(), []

    def _block(self, network: Network, channels: Channels) -> Callable[[], Block]:
        kind = _kind_for(channels) if self.kind == "auto" else self.kind
        style = Style(network.module, network.sites.find(self.site))
        maps, count = channels.layout is Layout.MAPS, channels.count
        if kind == "identity":
            _refuse_in_front_of_relu(network, network.sites.find(self.site))
            return lambda: IdentityLayer(count, 3, channels.dims if maps else 0)
        if kind == "layer":
            return _layer(network, network.sites.find(self.site), channels)
        if (kind == "conv") is not maps:
            raise Declined(f"kind={kind} does not fit {channels.layout.value} of shape {channels.shape}")
        if kind == "conv":
            hidden, act = self.hidden or count, style.activation(nn.ReLU)
            return lambda: ConvBlock(count, hidden, 3, channels.dims, style.norm(hidden, channels.dims), act)
        if kind == "mlp":
            hidden, act = self.hidden or 2 * count, style.activation(nn.GELU)
            return lambda: MlpBlock(count, hidden, _feature_norm(style, channels), act)
        if len(channels.shape) != 3:
            raise Declined(f"attention wants tokens (N, L, C), not a value of shape {channels.shape}")
        heads = self.heads or next(h for h in range(8, 0, -1) if count % h == 0 and (count // h >= 16 or h == 1))
        if count % heads:
            raise MutationError(f"heads={heads} does not divide the width {count} of `{self.site}`")
        _refuse_sequence_first(network, network.sites.find(self.site))
        causal = must_be_causal(network, network.sites.find(self.site))
        return lambda: AttentionBlock(count, heads, _feature_norm(style, channels), causal)


def _kind_for(channels: Channels) -> str:
    return "conv" if channels.layout is Layout.MAPS else "mlp"


def _layer(network: Network, site: fx.Node, channels: Channels) -> Callable[[], Block]:
    """A layer like the one that ends in the site.

    Raises:
        Declined: if the activation there would change its own result.
    """
    kind = idempotent_kind(network.module, site)
    if kind is None:
        raise Declined(
            f"no f with f(f(x)) = f(x) stands at `{network.sites.name(site)}`, as ReLU is, so that a further layer "
            "with an activation is no identity; kind=identity has one that starts linear"
        )
    dims = channels.dims if channels.layout is Layout.MAPS else 0
    front = _map_in_front(network, site)
    kernel = getattr(front, "kernel_size", ())
    odd = len(kernel) == dims and all(size % 2 for size in kernel)
    bias = front is None or front.bias is not None
    limits = kind[1:] if kind[0] is nn.Hardtanh else ()
    return lambda: RepeatedLayer(channels.count, kernel if odd else (3,) * dims, bias, kind[0](*limits))


def _map_in_front(network: Network, node: fx.Node) -> nn.Module | None:
    """The nearest linear map or convolution along first inputs."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        part = called_module(network.module, node)
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return part
    return None


def _refuse_in_front_of_relu(network: Network, site: fx.Node) -> None:
    """Decline where the slope of a new PReLU would never learn: what is below zero is cut off behind it."""
    kinds = [idempotent_kind(network.module, reader) for reader in site.users]
    if kinds and all(kind is not None and kind[0] in (nn.ReLU, nn.ReLU6) for kind in kinds):
        behind = network.sites.name(next(iter(site.users)))
        raise Declined(f"the slope of a new PReLU would never learn in front of a ReLU; name `{behind}` instead")


def _feature_norm(style: Style, channels: Channels) -> nn.Module:
    norm = style.norm(channels.count, 0)
    rows = len(channels.shape) == 2  # a batch norm takes tokens for maps
    return norm if rows or not isinstance(norm, nn.BatchNorm1d) else nn.Identity()


def _refuse_sequence_first(network: Network, site: fx.Node) -> None:
    """Decline where the model's own attention takes the site's first axis for the sequence, not for the batch."""
    facts = network.analysis.facts
    first = facts[site].output.axes[0]
    for node in network.module.graph.nodes:
        if is_attention(network, node) and isinstance(node.args[0], fx.Node):
            query = facts[node.args[0]].output
            if isinstance(query, Value) and [*leaves(query.axes[-2])] == [*leaves(first)] != []:
                raise Declined("attention wants tokens (N, L, C), and here the first axis is the sequence")


def _copyable(network: Network, path: str) -> bool:
    """Whether a module's result can be fed to it once more, and the module has weights of its own."""
    try:
        region = Region.of(network.module.graph, path, network.sites.standing(path))
    except GraphGrowError:
        return False
    if _first_infinite(network, region) is not None:
        return False
    return any(_weighs(network, region, stream) for stream in region.streams())


def _first_infinite(network: Network, region: Region) -> Value | None:
    named = {node.name: facts for node, facts in network.analysis.facts.items()}
    return first_infinite((named[node.name] for node in region.nodes), region.result.name)


def _weighs(network: Network, region: Region, stream: fx.Node) -> bool:
    """Whether a stream flows through weights of the region's own."""
    reached = {stream}
    for node in region.nodes:
        if any(used in reached for used in node.all_input_nodes):
            reached.add(node)
            held = (node, *(turned_from(used) for used in node.all_input_nodes if used in region.nodes))
            if any(weight.dim() > 1 for used in held for weight in parameters_of(network.module, used)):
                return True
    return False


def _copy(network: Network, insertion: Insertion, path: str) -> None:
    graph = insertion.editor.module.graph
    region = Region.of(graph, path)
    refuse_infinite(_first_infinite(network, region))
    streams = [stream for stream in region.streams() if _weighs(network, region, stream)]
    if not streams:
        raise Declined(f"nothing that flows into `{path}`, through weights of its own, has the shape of what flows out")
    insertion.behind(region.result)
    proofs = {
        stream: close_branches(insertion.editor.module, region.nodes, stream, region.result, region.result, path)
        for stream in streams
    }
    stream = next((stream for stream, closings in proofs.items() if closings is not None), streams[0])
    copied, closings = copy_region(insertion, region, stream), proofs[stream]
    if closings is None:
        gate = insertion.make(GatedSkip)
        result = insertion.inline(gate, [copied, region.result], f"{insertion.path}_gate")
    else:
        result = copied
        for target in open_ones(insertion.editor.module, region.nodes, stream, region.result, region.result, closings):
            set_to_zero(insertion.editor.module, insertion.path + target.removeprefix(path))
    insertion.carry_on(region.result, result)
