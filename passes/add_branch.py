"""add-branch: a parallel branch beside a convolution or a linear map, closed at the start."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import fx, nn

from graphgrow.blocks.block import Block, conv
from graphgrow.blocks.branch import ConvBranch, MlpBranch, PoolBranch
from graphgrow.blocks.connection import GatedSkip
from graphgrow.blocks.style import Style
from graphgrow.errors import Declined, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.network.overflow import refuse_infinite
from graphgrow.network.unheard import NOTHING_LEARNS, unheard
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.insert import Insertion

KINDS = ("auto", "conv", "depthwise", "pool", "mlp", "low-rank", "identity")
_CONVS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class AddBranch(Mutation):
    """Add a branch from an operator's input to its output, whose last linear map starts at zero.

    Beside a convolution, with its kernel, stride, padding and dilation: `conv` (a convolution like it, norm,
    activation, 1x1), `depthwise` (the same, each channel by itself), `pool` (average, 1x1). Beside a linear map: `mlp`
    (linear, activation, linear), `low-rank` (two linear maps). `identity`: the input behind a gate that starts at 0,
    where the shapes agree. `auto`: conv or mlp. Norm and activation are those of the nearest modules. Exact in eval
    and train mode.

    Attributes:
        site: module path of the operator.
        kind: one of the above.
        hidden: channels inside the branch; 0 for as many as the operator puts out (low-rank: an eighth of them).
    """

    site: str
    kind: str = "auto"
    hidden: int = 0
    name: ClassVar[str] = "add-branch"
    summary: ClassVar[str] = "a parallel branch beside an operator, closed at the start"

    @classmethod
    def sites(cls, network: Network) -> Iterator[AddBranch | Refusal]:
        """Every convolution and linear map."""
        silent = unheard(network.module)
        for node in network.module.graph.nodes:
            if node.op != "call_module":
                continue
            module = network.module.get_submodule(str(node.target))
            if not isinstance(module, (*_CONVS, *_TRANSPOSED, nn.Linear)):
                continue
            name = network.sites.name(node)
            if node in silent:
                yield Refusal(name, NOTHING_LEARNS)
                continue
            kind = "mlp" if isinstance(module, nn.Linear) else "conv"
            mutation = cls(name, kind)
            yield offered(mutation, partial(mutation._branch, network, node))

    def varied(self, network: Network, draw: random.Random) -> AddBranch:
        """Of any kind; one that does not fit there declines."""
        return replace(self, kind=draw.choice([kind for kind in KINDS if kind != "auto"]))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Add the branch."""
        if self.kind not in KINDS:
            raise MutationError(f"kind={self.kind}: there are {', '.join(KINDS)}")
        if self.hidden < 0:
            raise MutationError(f"hidden={self.hidden}: a number of channels or 0 is wanted")
        if self.hidden and self.kind in ("depthwise", "pool", "identity"):
            raise MutationError(f"hidden={self.hidden}: a branch of kind={self.kind} has none; leave it out")
        node = network.sites.find(self.site)
        block = self._branch(network, node)
        insertion = Insertion(network, editor, self.site, self.name, generator)
        (source,) = insertion.site.all_input_nodes
        read = insertion.readable(source)
        insertion.behind(insertion.site)
        insertion.carry_on(insertion.site, insertion.inline(insertion.make(block), [read, insertion.site]))
        return insertion.step(), []

    def _branch(self, network: Network, node: fx.Node) -> Callable[[], Block]:
        module: Any = called_module(network.module, node)
        if isinstance(module, _TRANSPOSED):
            raise Declined(f"`{self.site}` is a transposed convolution, beside which no kind of branch can stand yet")
        if not isinstance(module, (*_CONVS, nn.Linear)) or len(node.all_input_nodes) != 1:
            raise Declined(f"`{self.site}` is no convolution or linear map of torch.nn")
        (source,) = node.all_input_nodes
        refuse_infinite(network.analysis.facts[source].output)
        before, behind = source.meta["value"], node.meta["value"]
        if before.is_complex():
            raise Declined(f"`{self.site}` maps complex numbers, which the blocks do not")
        linear = isinstance(module, nn.Linear)
        kind = ("mlp" if linear else "conv") if self.kind == "auto" else self.kind
        if kind == "identity":
            if before.shape != behind.shape:
                raise Declined(f"kind=identity: the shapes {tuple(before.shape)} and {tuple(behind.shape)} differ")
            stride = () if linear else cast(nn.Conv2d, module).stride
            if any(step != 1 for step in stride):
                raise Declined(f"kind=identity: with stride {stride} the shapes differ for larger inputs")
            return GatedSkip
        if (kind in ("mlp", "low-rank")) is not linear:
            raise Declined(f"kind={kind} does not fit a {type(module).__name__}")
        style = Style(network.module, node)
        if linear:
            return self._beside_linear(cast(nn.Linear, module), kind, style)
        if before.dim() != _dims(cast(nn.Module, module)) + 2:
            raise Declined(f"an input of {before.dim()} axes, without a batch axis")
        return self._beside_conv(cast(nn.Conv2d, module), kind, style)  # all classes have the same fields

    def _beside_linear(self, module: nn.Linear, kind: str, style: Style) -> Callable[[], Block]:
        inputs, outputs = module.in_features, module.out_features
        if kind == "low-rank":
            return lambda: MlpBranch(inputs, self.hidden or max(1, outputs // 8), outputs, nn.Identity())
        return lambda: MlpBranch(inputs, self.hidden or outputs, outputs, style.activation(nn.GELU))

    def _beside_conv(self, module: nn.Conv2d, kind: str, style: Style) -> Callable[[], Block]:
        dims, inputs, outputs = _dims(module), module.in_channels, module.out_channels
        geometry: dict[str, Any] = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
        kernel: Any = module.kernel_size
        if module.padding_mode != "zeros":
            geometry["padding_mode"] = module.padding_mode
        if kind == "pool":
            if isinstance(module.padding, str) or any(d != 1 for d in module.dilation):
                raise Declined("an average has no dilation, and its padding is a number")
            if any(2 * p > k for p, k in zip(module.padding, kernel, strict=True)):
                raise Declined(f"an average of {kernel} cannot be padded by {module.padding}")
            if dims == 3 and any(module.padding):
                raise Declined("over volumes torch's average refuses inputs smaller than its window, padded or not")
            stride, padding = tuple(module.stride), tuple(module.padding)
            return lambda: PoolBranch(inputs, outputs, dims, tuple(kernel), stride, padding)
        hidden = inputs if kind == "depthwise" else self.hidden or outputs
        groups = inputs if kind == "depthwise" else 1

        def branch() -> Block:
            norm = style.norm(hidden, dims)
            biased = isinstance(norm, nn.Identity)  # a norm has a bias of its own, and may take another out again
            first = conv(dims, inputs, hidden, kernel, groups=groups, bias=biased, **geometry)
            return ConvBranch(first, norm, style.activation(nn.ReLU), hidden, outputs, dims)

        return branch


def _dims(module: nn.Module) -> int:
    return next(dims for kind, dims in _CONVS.items() if isinstance(module, kind))
