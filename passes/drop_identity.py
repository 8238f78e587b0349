"""drop-identity: take a layer away that passes its input on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.network.neighbours import parameters_of
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.closing import idempotent_kind
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.erase import bypass, refuse_shared_memory

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True)
class DropIdentity(Mutation):
    """Take a layer away whose output is its input, to the bit.

    That is nn.Identity; dropout with p = 0; an activation f behind the same f, where f(f(x)) = f(x); a PReLU whose
    slopes are all 1; a linear map or convolution whose weight is the identity and whose bias is zero. Exact in eval and
    train mode.

    Attributes:
        site: module path of the layer, or an operator as `module:relu`.
    """

    site: str
    name: ClassVar[str] = "drop-identity"
    summary: ClassVar[str] = "take a layer away that passes its input on"

    @classmethod
    def sites(cls, network: Network) -> Iterator[DropIdentity | Refusal]:
        """Every such layer."""
        for node in network.module.graph.nodes:
            if not node.op.startswith("call") or not _is_one(network, node):
                continue
            yield offered(cls(network.sites.name(node)), partial(refuse_shared_memory, network, *_through(node)))

    def admit(self, network: Network) -> None:
        """Decline where the layer does not pass its input on."""
        node = network.sites.find(self.site)
        if any(parameter.is_meta for parameter in network.module.parameters()):
            return  # without data the structure is all there is
        if not _is_one(network, node):
            raise Declined(f"`{self.site}` is not known to pass its input on")

    def rests_on(self, network: Network) -> frozenset[str]:
        """The layer's own parameters."""
        node = network.sites.find(self.site)
        held = {id(parameter) for parameter in parameters_of(network.module, node)}
        return frozenset(n for n, p in network.module.named_parameters(remove_duplicate=False) if id(p) in held)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Take it away."""
        return bypass(network, editor, *_through(network.sites.find(self.site))), []


def _through(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """A layer and the one value that it reads."""
    if not node.op.startswith("call") or len(node.all_input_nodes) != 1:
        raise Declined(f"`{node.name}` is no layer of one input")
    return node, node.all_input_nodes[0]


def _is_one(network: Network, node: fx.Node) -> bool:
    if not node.op.startswith("call") or len(node.all_input_nodes) != 1:
        return False
    kind = idempotent_kind(network.module, node)
    if kind is not None:
        return kind == idempotent_kind(network.module, node.all_input_nodes[0])
    part = called_module(network.module, node)
    if type(part) is nn.Identity:
        return True
    if isinstance(part, _DROPOUTS):
        return type(part) in _DROPOUTS and part.p == 0
    if part is None or any(parameter.is_meta for parameter in part.parameters()):
        return False
    if type(part) is nn.PReLU:
        return bool((part.weight == 1).all())
    if type(part) in (nn.Linear, *_CONVS):
        return _passes_on(part)
    return False


def _passes_on(part: nn.Module) -> bool:
    """Whether a linear map or convolution has the identity for its weight, and no bias but zero."""
    weight, bias = part.get_parameter("weight").detach(), part._parameters.get("bias")
    kernel = tuple(weight.shape[2:])
    if weight.shape[0] != weight.shape[1] or (bias is not None and bool(bias.any())):
        return False
    if isinstance(part, _CONVS) and not (all(step == 1 for step in part.stride) and all(k % 2 for k in kernel)):
        return False
    wanted = torch.zeros_like(weight)
    middle = tuple(k // 2 for k in kernel)
    wanted.permute(*range(2, weight.dim()), 0, 1)[middle] = torch.eye(len(weight)).to(weight)
    return torch.equal(weight, wanted)
