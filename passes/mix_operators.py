"""mix-operators: open a site to a choice between operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx, nn

from graphgrow.blocks.activations import as_module, name_of
from graphgrow.blocks.mixture import Mixture
from graphgrow.blocks.operators import (
    BESIDE_ACTIVATIONS,
    BESIDE_CONVS,
    BESIDE_LINEAR,
    CONVS,
    DoesNotFit,
    imitate,
    keeps_shape,
    operator_like,
)
from graphgrow.errors import Declined, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.network.junctions import is_activation
from graphgrow.network.neighbours import is_batch_norm
from graphgrow.network.network import Network, Step
from graphgrow.network.overflow import refuse_infinite
from graphgrow.network.unheard import NOTHING_LEARNS, unheard
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.insert import Insertion


@dataclass(frozen=True)
class MixOperators(Mutation):
    """Open an operator to a choice: its output becomes a sum of it and of others on the same input.

    Beside a convolution: `conv-5`, `separable-3`, `dilated-3` (with any kernel size), `max-pool`, `average-pool`.
    Beside a linear map: `low-rank`. Beside an activation: any of `graphgrow.blocks.activations.ACTIVATIONS`. Where the
    shape stays the same also `identity`, a skip, and `none`, zero. Convolutions start as near to the present one as
    their form allows.

    The choice starts closed: the present operator has the weight 1 and all others 0, exactly and in both modes, while
    the architecture parameters `alpha` have a gradient (see `graphgrow.layers.Choice`). Exact in eval and train mode
    for inputs on which the candidates are finite. `settle-operators` leaves one of them.

    Attributes:
        site: module path of the operator, or an activation as `module:relu`.
        choices: names of the candidates.
    """

    site: str
    choices: tuple[str, ...]
    name: ClassVar[str] = "mix-operators"
    summary: ClassVar[str] = "open a site to a choice between operators"

    @classmethod
    def sites(cls, network: Network) -> Iterator[MixOperators | Refusal]:
        """Every convolution, linear map and activation, with all usual candidates that fit."""
        silent = unheard(network.module)
        for node in network.module.graph.nodes:
            part = called_module(network.module, node)
            called = type(part) in (*CONVS, nn.Linear)
            if not called and not (node.op.startswith("call") and is_activation(network, node)):
                continue
            name = network.sites.name(node)
            if node in silent:
                yield Refusal(name, NOTHING_LEARNS)
                continue
            try:
                present = _present(network, node, name)
            except Declined as declined:
                yield Refusal(name, str(declined))
                continue
            fitting = tuple(choice for choice in _usual(present) if _fits(present, choice))
            yield cls(name, fitting) if fitting else Refusal(name, "no other operator fits here")

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Put the candidates beside the operator, and the choice behind."""
        if not self.choices or len(set(self.choices)) < len(self.choices):
            raise MutationError(f"choices={list(self.choices)}: at least one, and none twice")
        node = network.sites.find(self.site)
        present = _present(network, node, self.site)
        same = keeps_shape(present)
        try:
            makers = [operator_like(present, choice, same) for choice in self.choices]
        except DoesNotFit as reason:
            raise Declined(f"`{self.site}`: {reason}") from None
        insertion = Insertion(network, editor, self.site, self.name, generator)
        (source,) = insertion.site.all_input_nodes
        read = insertion.readable(source)
        insertion.behind(insertion.site)
        block = insertion.make(lambda: Mixture(self.choices, makers))
        if node.users and all(is_batch_norm(network.module, reader) for reader in node.users):
            for part in block.modules():  # it would take a bias away again, which would never learn
                if type(part) in CONVS or isinstance(part, nn.Linear):
                    part.register_parameter("bias", None)
        for choice in self.choices:
            imitate(block.get_submodule(choice.replace("-", "_")), present)
        insertion.carry_on(insertion.site, insertion.inline(block, [read, insertion.site]))
        return insertion.step(), []


def _present(network: Network, node: fx.Node, name: str) -> nn.Module:
    """The operator of a node as a module.

    Raises:
        Declined: if it is none that a choice can stand beside.
    """
    if len(node.all_input_nodes) != 1 or not node.op.startswith("call"):
        raise Declined(f"`{name}` is no operator of one input")
    refuse_infinite(network.analysis.facts[node.all_input_nodes[0]].output)
    value, source = node.meta["value"], node.all_input_nodes[0].meta["value"]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not isinstance(source, torch.Tensor):
        raise Declined(f"`{name}` puts out no floating-point tensor, which a share could be taken of")
    part = called_module(network.module, node)
    if part is not None and type(part) in (*CONVS, nn.Linear):
        if type(part) in CONVS and source.dim() != CONVS[type(part)] + 2:
            raise Declined(f"an input of {source.dim()} axes, without a batch axis")
        return part
    found = as_module(part, node.target, node.args[1:], node.kwargs)
    if found is None or name_of(found) is None:
        raise Declined(f"`{name}` is no convolution, linear map or activation that a choice can stand beside")
    return found


def _usual(present: nn.Module) -> tuple[str, ...]:
    """The usual candidates beside an operator, itself left out."""
    if isinstance(present, nn.Linear):
        return BESIDE_LINEAR
    if type(present) not in CONVS:
        return tuple(name for name in BESIDE_ACTIVATIONS if name != name_of(present))
    sizes, plain = set(present.get_parameter("weight").shape[2:]), all(step == 1 for step in present.dilation)  # type: ignore[union-attr]
    return tuple(name for name in BESIDE_CONVS if not (plain and sizes == {_size(name)} and name.startswith("conv")))


def _size(name: str) -> int:
    return int(name.rpartition("-")[2]) if name[-1].isdigit() else 0


def _fits(present: nn.Module, choice: str) -> bool:
    try:
        operator_like(present, choice, keeps_shape(present))
    except DoesNotFit:
        return False
    return True
