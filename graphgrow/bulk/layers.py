"""Layers without a block around them, of which a larger sibling has more: VGG's convolutions, the maps of an MLP.

Behind an activation that changes nothing a second time, as ReLU, a square map that is the identity and that activation
once more change nothing: such a layer is put in, and learns. Where another layer stands in the way the reason is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import fx, nn

from graphgrow.bulk.stages import numbered
from graphgrow.errors import Unsupported
from graphgrow.ir.called import called_module
from graphgrow.network.network import Network
from graphgrow.rewrite.closing import idempotent_kind

_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_REFUSED = "a further layer of this sequence changes what is computed"


@dataclass(frozen=True)
class Extra:
    """Layers of a target that a graph lacks.

    Attributes:
        sites: the activation behind which each is put, as `deepen` names it.
        origins: by path of each of the target's layers, the graph's that it descends from; a path that nothing has for
            those that are new.
    """

    sites: tuple[str, ...]
    origins: Mapping[str, str]


def layers_of(network: Network, parent: str, prefix: str) -> list[fx.Node]:
    """The calls of layers with weights that are direct children of a module, `parent.prefix0`, ..., as they run."""
    return [node for node in _weighing(network) if numbered(_site_of(str(node.target))) == (parent, prefix)]


def extra_layers(graph: Network, target: Network, parent: str, prefix: str) -> Extra:
    """Which layers are put where, so that a graph has as many as its target.

    Layers are taken in runs whose results have one shape, as blocks are.

    Args:
        graph: to be grown.
        target: the larger sibling, captured.
        parent: of the layers.
        prefix: of their numbers.

    Raises:
        Unsupported: if what is further in the target is not the identity for any numbers, and why.
    """
    mine, theirs = layers_of(graph, parent, prefix), layers_of(target, parent, prefix)
    for network_nodes in (mine, theirs):
        for path, calls in groupby(sorted(str(node.target) for node in network_nodes)):
            if len(list(calls)) > 1:
                raise Unsupported(f"`{path}` is called several times, so that a further layer has no place of its own")
    left, right = list(_runs(mine)), list(_runs(theirs))
    name = f"{parent}.{prefix}N" if parent else f"{prefix}N"
    if len(left) != len(right):
        raise Unsupported(
            f"the layers `{name}` come in {len(right)} runs of one shape in the target and in {len(left)} here; the "
            "target must have the same sequence of shapes, each as long or longer"
        )
    sites: list[str] = []
    origins: dict[str, str] = {}
    for own, larger in zip(left, right, strict=True):
        if len(own) > len(larger):
            raise Unsupported(
                f"the target has fewer layers `{name}` of shape {_shape(own[0])} than the graph; nothing can shrink"
            )
        count = len(larger) - len(own)
        at = len(own)
        if count:
            at = _place(graph, own) + 1
            sites += [graph.sites.name(_activation(graph, own[at - 1]) or own[at - 1])] * count
            for further in larger[at : at + count]:
                _refuse_class(target, further)
            for front, further in zip(larger[at - 1 :], larger[at : at + count], strict=False):
                _refuse_chain(target, front, further)
        line = [str(node.target) for node in own]
        line[at:at] = [f"{sites[-1]}@new" for _ in range(count)] if count else []
        origins.update(zip((str(node.target) for node in larger), line, strict=True))
    return Extra(tuple(sites), origins)


def places(grown: Network, target: Network, parent: str, prefix: str, sites: Sequence[str]) -> dict[str, str]:
    """By path of each of the target's layers, that of the grown graph's in the same place.

    Args:
        grown: the graph after `deepen` has put the layers in.
        target: as for `extra_layers`.
        parent: of the layers.
        prefix: of their numbers.
        sites: behind which they were put.
    """
    stems = [re.escape(site.replace(":", ".").replace("@", "_").strip(".")) for site in sites]
    new = re.compile("|".join(rf"{stem}_deepen\d*\.linear" for stem in stems) or r"(?!)")
    theirs, known = layers_of(target, parent, prefix), set(layers_of(grown, parent, prefix))
    mine = [node for node in _weighing(grown) if node in known or new.fullmatch(str(node.target))]
    return {str(there.target): str(here.target) for there, here in zip(theirs, mine, strict=True)}


def _site_of(path: str) -> str:
    """Of a layer that `deepen` has put behind a module the path that counts as that module's; else its own."""
    stem = path.removesuffix(".linear")
    return stem if re.fullmatch(r".*\d+(_deepen\d*)+", stem) else path


def _weighing(network: Network) -> Iterator[fx.Node]:
    assert network.analysis.facts  # every node has its example value now
    for node in network.module.graph.nodes:
        if node.op == "call_module" and any(True for _ in network.module.get_submodule(str(node.target)).parameters()):
            yield node


def _runs(nodes: Sequence[fx.Node]) -> Iterator[list[fx.Node]]:
    for _, run in groupby(nodes, key=_shape):
        yield list(run)


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta["value"]
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _activation(network: Network, node: fx.Node) -> fx.Node | None:
    """What alone reads a layer's result, where that changes nothing a second time."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    return None if reader is None or idempotent_kind(network.module, reader) is None else reader


def _place(network: Network, run: Sequence[fx.Node]) -> int:
    """The last layer of a run behind which another is an identity.

    Raises:
        Unsupported: if there is none.
    """
    found = [number for number, node in enumerate(run) if _activation(network, node) is not None]
    if found:
        return found[-1]
    last = run[-1]
    reader = next(iter(last.users), None)
    behind = "nothing" if reader is None else f"`{network.sites.name(reader)}`"
    raise Unsupported(
        f"{_REFUSED}: behind `{last.target}` stands {behind}, no f with f(f(x)) = f(x) as ReLU is, so that a square "
        "map with f behind it is not the identity for any weights"
    )


def _refuse_class(target: Network, further: fx.Node) -> None:
    """Refuse what is not the identity for any weights.

    Raises:
        Unsupported: with what it is.
    """
    part = target.module.get_submodule(str(further.target))
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        raise Unsupported(
            f"{_REFUSED}: `{further.target}` is a {type(part).__name__}, which divides by the deviation of each batch "
            "in train mode, so that it is the identity in eval mode alone; a sequence without norms can be longer"
        )
    if type(part) not in _MAPS:
        raise Unsupported(f"{_REFUSED}: `{further.target}` is {part}, which is the identity for no weights")
    if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and not _keeps_positions(part):
        raise Unsupported(
            f"{_REFUSED}: `{further.target}` is {part}, which is the identity for no weights; it must have one group, "
            "stride 1, an odd kernel, and half of that for its padding, of zeros"
        )


def _refuse_chain(target: Network, front: fx.Node, further: fx.Node) -> None:
    """Refuse a map that does not read an activation's result, or in front of no such activation.

    Raises:
        Unsupported: with what stands there.
    """
    source = further.all_input_nodes[0]
    while _is_idle(target, source):
        source = source.all_input_nodes[0]
    if _activation(target, front) is not source:
        raise Unsupported(
            f"{_REFUSED}: `{further.target}` reads `{target.sites.name(source)}`, where it must read the activation "
            f"behind `{front.target}` (dropout in between would drop twice)"
        )
    if _activation(target, further) is None:
        raise Unsupported(
            f"{_REFUSED}: behind `{further.target}` stands no f with f(f(x)) = f(x), as ReLU is, so that it is not "
            "the identity for any weights"
        )


def _is_idle(network: Network, node: fx.Node) -> bool:
    """Whether a node passes its input on in both modes."""
    part = called_module(network.module, node)
    return isinstance(part, nn.Identity) or (isinstance(part, nn.modules.dropout._DropoutNd) and part.p == 0)


def _keeps_positions(part: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    half = tuple(size // 2 for size in part.kernel_size)
    plain = part.groups == 1 and part.padding_mode == "zeros" and {*part.stride, *part.dilation} == {1}
    return plain and all(size % 2 for size in part.kernel_size) and part.padding in (half, "same")
