"""Blocks in the manner of what stands around them: the nearest norm and activation of the graph."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

from torch import fx, nn

from graphgrow.blocks.activations import not_in_place

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Hardswish,
)  # fmt: skip
_BATCH_NORMS: dict[int, type[nn.Module]] = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Style:
    """What the modules around a node are like, nearest in the order of the graph first.

    Args:
        module: the graph, whose nodes have their example values.
        site: the node.
    """

    def __init__(self, module: fx.GraphModule, site: fx.Node) -> None:
        self._module = module
        self._nodes = list(module.graph.nodes)
        self._at = self._nodes.index(site)

    def activation(self, default: Callable[[], nn.Module]) -> nn.Module:
        """A new activation with the class and the options of the nearest one."""
        for _, part in self._nearest():
            if type(part) in _ACTIVATIONS:
                return copy.deepcopy(not_in_place(part)).train()  # its own, hooks and all
        return default()

    def norm(self, channels: int, dims: int) -> nn.Module:
        """A new norm of maps (`dims` spatial axes) or features (`dims` 0) like the nearest; Identity if none fits.

        One that cannot normalise a single sample here does not fit, unless the model has such a norm of features.
        """
        for node, part in self._nearest():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and self._batch_norm_fits(node, part, dims):
                return _BATCH_NORMS[dims](channels, eps=part.eps, momentum=part.momentum)
            if isinstance(part, nn.GroupNorm) and dims and self._group_norm_fits(part, channels):
                return nn.GroupNorm(part.num_groups, channels, eps=part.eps)
            if type(part) is nn.LayerNorm and not dims:
                return nn.LayerNorm(channels, eps=part.eps)
            if type(part) is nn.RMSNorm and not dims:
                return nn.RMSNorm(channels, eps=part.eps)
        return nn.Identity()

    @property
    def _positions(self) -> int:
        """Number of positions of the site's maps."""
        return math.prod(self._nodes[self._at].meta["value"].shape[2:])

    def _batch_norm_fits(self, node: fx.Node, part: nn.Module, dims: int) -> bool:
        """On maps of one position, and on features, the statistics of one sample would be over one number."""
        if dims:
            return self._positions > 1
        return isinstance(part, nn.BatchNorm1d) and node.meta["value"].dim() == 2

    def _group_norm_fits(self, part: nn.GroupNorm, channels: int) -> bool:
        return channels % part.num_groups == 0 and channels // part.num_groups * self._positions > 1

    def _nearest(self) -> Iterator[tuple[fx.Node, nn.Module]]:
        before, behind = self._nodes[self._at :: -1], self._nodes[self._at + 1 :]
        for distance in range(max(len(before), len(behind))):
            for side in (before, behind):
                if distance < len(side) and side[distance].op == "call_module":
                    yield side[distance], self._module.get_submodule(str(side[distance].target))
