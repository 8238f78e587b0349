"""The blocks that random models are built of."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.properties.written import VOCABULARY, Written


class Residual(Written):
    """x + branch(x), or the sum through a projection where widths differ."""

    def __init__(self, branch: nn.Module, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.projection = branch, projection or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes as those of the branch."""
        result: torch.Tensor = self.projection(x) + self.branch(x)
        return result


class Beside(Written):
    """Two branches, concatenated along the channels (a dense block where one is the identity)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, ...) -> (n, c1 + c2, ...)."""
        return torch.cat([self.first(x), self.second(x)], 1)


class Gate(Written):
    """Squeeze and excitation: each channel times a gate that all channels decide."""

    def __init__(self, down: nn.Module, up: nn.Module, axes: tuple[int, ...] = (2, 3)) -> None:
        super().__init__()
        self.down, self.up, self.axes = down, up, axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, ...) -> the same."""
        gate = self.up(torch.relu(self.down(x.mean(self.axes, keepdim=True))))
        return x * torch.sigmoid(gate)


class Twice(Written):
    """The same module called two times."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes are kept."""
        result: torch.Tensor = self.inner(torch.tanh(self.inner(x)))
        return result


class GatedHidden(Written):
    """One projection, cut in two: a value and its gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same."""
        value, gate = self.up(x).chunk(2, dim=-1)
        result: torch.Tensor = self.down(value * F.silu(gate))
        return result


# Orders of the parts, the heads and the width of a head along a packed projection, with the axis of the parts.
ORDERS = {"parts first": (2, (3, 0, 0)), "parts second": (3, (0, 3, 0)), "parts last": (4, (0, 0, 3))}


class PackedAttention(Written):
    """Self-attention from one packed projection, by views into heads; the parts are taken out in one of two ways."""

    def __init__(
        self, width: int, heads: int, head_width: int, fused: bool, order: str = "parts first", indexed: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.fused, self.order, self.indexed = heads, fused, order, indexed
        self.qkv, self.out = nn.Linear(width, 3 * heads * head_width), nn.Linear(heads * head_width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        n, length, _ = x.shape
        axis, sizes = ORDERS[self.order]
        cut = [size or (self.heads if number == sizes.index(0) else -1) for number, size in enumerate(sizes)]
        packed = self.qkv(x).reshape(n, length, *cut)
        parts = [packed.select(axis, i) for i in range(3)] if self.indexed else packed.unbind(axis)
        q, k, v = (part.transpose(1, 2) for part in parts)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
            mixed = torch.softmax(scores, dim=-1) @ v
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, -1))
        return result


class Scaled(Written):
    """Each unit of the last axis scaled by a number of its own (a layer scale)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same."""
        return x * self.scale


class Steady(Written):
    """A function with a pole that what it is given keeps away from."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape -> the same."""
        if self.kind == "quotient":
            return x / (1 + x.abs())
        if self.kind == "root":
            return torch.sqrt(F.softplus(x) + 0.1)
        if self.kind == "log":
            return torch.log1p(torch.relu(x))
        return torch.exp(-F.softplus(x)) * torch.rsqrt(1 + x * x)


class LayerAttention(Written):
    """nn.MultiheadAttention on one sequence."""

    def __init__(self, width: int, heads: int, weights: bool) -> None:
        super().__init__()
        self.weights, self.attention = weights, nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        result: torch.Tensor = self.attention(x, x, x, need_weights=self.weights)[0]
        return result


class Tokens(Written):
    """Embedded tokens with positions, blocks, and the first token or the mean of all read out."""

    def __init__(self, embed: nn.Module, width: int, length: int, blocks: nn.Module, head: nn.Module, how: str) -> None:
        super().__init__()
        self.embed, self.blocks, self.head, self.how = embed, blocks, head, how
        self.positions = nn.Parameter(torch.randn(1, length, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, features) or whole numbers (n, l) -> (n, classes)."""
        x = self.blocks(self.embed(x) + self.positions)
        x = x[:, 0] if self.how == "first" else x.mean(1) if self.how == "mean" else x.flatten(1)
        result: torch.Tensor = self.head(x)
        return result


class TiedPair(Written):
    """Two linear maps over one weight, with biases of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same."""
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


class LastAxis(Written):
    """A block over the last axis on maps whose channels come second, each channel scaled (ConvNeXt)."""

    def __init__(self, depthwise: nn.Module, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.depthwise, self.inner, self.scale = depthwise, inner, nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, ...) -> the same."""
        y = self.inner(self.depthwise(x).movedim(1, -1)) * self.scale
        return x + y.movedim(-1, 1)


class Shuffle(Written):
    """Half of the channels pass by, and the halves are shuffled (ShuffleNet)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 2 c, h, w) -> the same."""
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat((kept, self.branch(changed)), dim=1)
        n, channels, height, width = x.shape
        return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


class DownAndUp(Written):
    """A coarser scale between two convolutions, beside what it was made from (U-Net)."""

    def __init__(self, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, 2 h, ...) -> (n, c + c', 2 h, ...)."""
        return torch.cat([x, self.up(torch.relu(self.down(x)))], 1)


class Patches(Written):
    """Maps to tokens: (n, c, ...) -> (n, positions, c)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Positions in one axis, in front of the channels."""
        return x.flatten(2).transpose(1, 2)


class CrossAttention(Written):
    """Queries from one sequence, keys and values from another, with an additive mask of the future."""

    mask: torch.Tensor

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, heads * head_width) for _ in range(3))
        self.out = nn.Linear(heads * head_width, width)
        self.register_buffer("mask", torch.triu(torch.full((16, 16), -1e4), 1), persistent=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(n, l, width) and (n, m, width) -> (n, l, width)."""
        n, length, other = x.shape[0], x.shape[1], y.shape[1]
        q = self.q(x).view(n, length, self.heads, -1).transpose(1, 2)
        k, v = (layer(y).view(n, other, self.heads, -1).transpose(1, 2) for layer in (self.k, self.v))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / (q.shape[-1] ** 0.5) + self.mask[:length, :other]
        mixed = torch.softmax(scores, dim=-1) @ v
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Decoder(Written):
    """Two token sequences: the first is read through the second, and read out with the embedding's own weight."""

    def __init__(self, width: int, cross: nn.Module, norm: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.embed, self.cross, self.norm, self.block = nn.Embedding(VOCABULARY, width), cross, norm, block
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Whole numbers (n, l) and (n, m) -> (n, l, vocabulary)."""
        a, b = self.embed(x), self.embed(y)
        a = a + self.cross(a, b)
        result: torch.Tensor = self.head(self.norm(self.block(a)))
        return result


class TwoInTwoOut(Written):
    """Two inputs, joined by a sum or a product, and two outputs in a dictionary."""

    def __init__(self, first: nn.Module, second: nn.Module, trunk: nn.Module, heads: list[nn.Module], how: str) -> None:
        super().__init__()
        self.first, self.second, self.trunk, self.heads, self.how = first, second, trunk, nn.ModuleList(heads), how

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """(n, a) and (n, b) -> scores (n, 2) and a value (n,)."""
        a, b = self.first(x), self.second(y)
        z = self.trunk(a * torch.sigmoid(b) if self.how == "product" else torch.maximum(a, b))
        return {"scores": self.heads[0](z), "value": self.heads[1](z + a).squeeze(-1)}
