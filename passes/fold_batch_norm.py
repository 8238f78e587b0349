"""fold-batch-norm: a batch norm becomes part of the linear map in front of it, for inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.network.neighbours import holders_of, is_batch_norm, parameters_of
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.shapes import check_shapes

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_OUT_FIRST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OUT_SECOND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class FoldBatchNorm(Mutation):
    """Fold a batch norm into the convolution or linear map in front of it: weight * g, (bias - mean) * g + beta.

    With g = gamma / sqrt(variance + eps), by channel (Jacob et al., "Quantization and training", 2018,
    arXiv:1712.05877, equation 14). Exact in eval mode alone: in train mode the norm takes the statistics of the batch,
    and what is left does not. For export and inference, at the end.

    Attributes:
        site: module path of the batch norm.
    """

    site: str
    name: ClassVar[str] = "fold-batch-norm"
    summary: ClassVar[str] = "a batch norm becomes part of the linear map in front of it"
    unasked: ClassVar[bool] = False

    @classmethod
    def sites(cls, network: Network) -> Iterator[FoldBatchNorm | Refusal]:
        """Every batch norm behind a map that it alone reads."""
        holders = holders_of(network.module)
        for node in network.module.graph.nodes:
            if is_batch_norm(network.module, node):
                yield offered(cls(network.sites.name(node)), partial(_pair, network, node, holders))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Fold it."""
        node = network.sites.find(self.site)
        source, _, _ = _pair(network, node, holders_of(network.module))
        path = str(source.target)
        mine, theirs = editor.node(node.name), editor.node(source.name)
        norm, part = editor.module.get_submodule(str(node.target)), editor.module.get_submodule(path)
        gain, shift = _gain_and_shift(norm)
        axis = 1 if isinstance(part, _OUT_SECOND) else 0
        weight, bias = part.get_parameter("weight"), part._parameters.get("bias")
        shape = [1] * weight.dim()
        shape[axis] = -1
        scale = gain.reshape(shape)
        editor.set_tensor((f"{path}.weight",), (weight.detach().double() * scale).to(weight.dtype))
        changes = [_scaled((f"{path}.weight",), weight, part.get_parameter("weight"), scale)]
        old = torch.zeros_like(gain) if bias is None else bias.detach().double()
        new = (old * gain + shift).to(weight.dtype)
        if bias is None:
            part.register_parameter("bias", nn.Parameter(new, requires_grad=weight.requires_grad))
        else:
            editor.set_tensor((f"{path}.bias",), new)
            changes.append(_scaled((f"{path}.bias",), bias, part.get_parameter("bias"), gain))
        mine.target, mine.args, mine.kwargs = path, theirs.args, theirs.kwargs
        editor.module.graph.erase_node(theirs)
        editor.module.delete_all_unused_submodules()
        check_shapes(network, editor)
        touched = (f"{path}.weight", f"{path}.bias")
        return Step(exact_in=frozenset({"eval"}), touched=touched, rounded=True), changes


def _pair(
    network: Network, node: fx.Node, holders: Mapping[int, Sequence[fx.Node]]
) -> tuple[fx.Node, nn.Module, nn.Module]:
    """The map in front of a batch norm, its module, and the norm.

    Args:
        network: the parent.
        node: that calls the norm.
        holders: by identity of a parameter, the nodes that hold it.

    Raises:
        Declined: if they cannot become one.
    """
    norm = called_module(network.module, node)
    if type(norm) not in _BATCH_NORMS or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise Declined("it is no batch norm of torch.nn")
    if norm.running_mean is None or norm.running_var is None:
        raise Declined("it keeps no running statistics, and takes those of the batch in eval mode too")
    (source,) = node.all_input_nodes
    part = called_module(network.module, source)
    if part is None or type(part) not in (*_OUT_FIRST, *_OUT_SECOND):
        raise Declined(f"`{source.name}` in front of it is no linear map or convolution of torch.nn")
    channel = 1 if node.meta["value"].dim() > 1 else 0
    if isinstance(part, nn.Linear) and channel != node.meta["value"].dim() - 1:
        raise Declined(f"it normalises another axis than `{source.target}` writes")
    if isinstance(part, _OUT_SECOND) and getattr(part, "groups", 1) != 1:
        raise Declined(f"`{source.target}` is a transposed convolution in groups")
    if len(source.users) > 1:
        raise Declined(f"`{source.name}` has other readers, which would see another value")
    for one in (source, node):
        for parameter in parameters_of(network.module, one):
            other = next((other for other in holders[id(parameter)] if other is not one), None)
            if other is not None:
                raise Declined(f"`{other.name}` uses parameters of `{one.target}` too")
    return source, part, norm


def _gain_and_shift(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What the norm does to each channel in eval mode, x -> gain * x + shift, in float64."""
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    gain = gain if norm.weight is None else gain * norm.weight.detach().double()
    shift = -norm.running_mean.double() * gain
    return gain, shift if norm.bias is None else shift + norm.bias.detach().double()


def _scaled(names: tuple[str, ...], old: torch.Tensor, new: torch.Tensor, scale: torch.Tensor) -> TensorChange:
    """A parameter that was scaled by c has first moments m / c and second moments v / c^2; where c is 0 they are 0."""

    def carry(state: torch.Tensor, role: Role) -> torch.Tensor:
        factor = torch.where(scale == 0, 0.0, 1 / scale) ** role.order
        return (state.detach().double() * factor).to(state.dtype)

    return TensorChange(names, old, new, carry)
