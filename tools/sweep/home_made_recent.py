"""Small models after more recent papers, each of a structure that the other files of home-made models do not hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class _Splines(nn.Module):
    """A function of its own for each edge of a linear map: splines over a grid, beside a SiLU (KAN)."""

    class Layer(nn.Module):
        """One map; the splines are computed by the recursion of Cox and de Boor."""

        def __init__(self, inputs: int, outputs: int, order: int = 3, cells: int = 4) -> None:
            super().__init__()
            self.outputs, self.order = outputs, order
            self.base, self.scale = (nn.Parameter(0.3 * torch.randn(outputs, inputs)) for _ in range(2))
            self.spline = nn.Parameter(0.1 * torch.randn(outputs, inputs, cells + order))
            knots = torch.arange(-order, cells + order + 1) * (2 / cells) - 1
            self.register_buffer("knots", knots.expand(inputs, -1).contiguous())

        def forward(self, x: torch.Tensor) -> Any:
            at, knots = x.unsqueeze(-1), self.get_buffer("knots")
            basis = ((at >= knots[:, :-1]) & (at < knots[:, 1:])).to(x.dtype)
            for k in range(1, self.order + 1):
                rising = (at - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)])
                falling = (knots[:, k + 1 :] - at) / (knots[:, k + 1 :] - knots[:, 1:-k])
                basis = rising * basis[:, :, :-1] + falling * basis[:, :, 1:]
            weight = (self.spline * self.scale.unsqueeze(-1)).view(self.outputs, -1)
            return F.linear(F.silu(x), self.base) + F.linear(basis.view(x.size(0), -1), weight)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(self.Layer(4, 6), self.Layer(6, 5), self.Layer(5, 2))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


class _SplineFlow(nn.Module):
    """Rational quadratic splines between knots that a network places, and the logarithm of their slope."""

    def __init__(self, width: int = 3, bins: int = 4) -> None:
        super().__init__()
        self.width, self.bins = width, bins
        self.net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU())
        self.place = nn.Linear(7, width * (3 * bins + 1))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> Any:
        made = self.place(self.net(condition)).view(-1, self.width, 3 * self.bins + 1)
        wide, high, slopes = made.split([self.bins, self.bins, self.bins + 1], -1)
        wide, high = (1e-3 + (1 - 1e-3 * self.bins) * part.softmax(-1) for part in (wide, high))
        across, up = (F.pad(part.cumsum(-1), (1, 0)) for part in (wide, high))
        slopes, x = F.softplus(slopes) + 1e-3, torch.sigmoid(x)
        at = (torch.searchsorted(across.contiguous(), x.unsqueeze(-1), right=True) - 1).clamp(0, self.bins - 1)
        parts = (wide, across[..., :-1], high, up[..., :-1], slopes[..., :-1], slopes[..., 1:])
        w, left, h, low, before, behind = (part.gather(-1, at).squeeze(-1) for part in parts)
        t, slope = (x - left) / w, h / w
        below = slope + (before + behind - 2 * slope) * t * (1 - t)
        y = low + h * (slope * t**2 + before * t * (1 - t)) / below
        rise = slope**2 * (behind * t**2 + 2 * slope * t * (1 - t) + before * (1 - t) ** 2)
        return y, (rise.log() - 2 * below.log()).sum(-1)


class _Deformable(nn.Module):
    """A convolution that reads where it is told to, each tap weighted (deformable convolution, by grid_sample)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.offsets = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 18, 3, padding=1)
        self.masks, self.weight = nn.Conv2d(6, 9, 3, padding=1), nn.Parameter(0.2 * torch.randn(7, 6, 9))
        self.bias, self.head = nn.Parameter(torch.zeros(7)), nn.Conv2d(7, 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = F.relu(self.stem(x))
        batch, _, height, width = x.shape
        moved, masks = self.offsets(x).view(batch, 9, 2, height, width), torch.sigmoid(self.masks(x))
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        read = []
        for tap in range(9):
            row = (rows + moved[:, tap, 0] + tap // 3 - 1) * 2 / (height - 1) - 1
            column = (columns + moved[:, tap, 1] + tap % 3 - 1) * 2 / (width - 1) - 1
            places = torch.stack([column, row], -1)
            read.append(F.grid_sample(x, places, align_corners=True) * masks[:, tap : tap + 1])
        y = torch.einsum("bckhw,ock->bohw", torch.stack(read, 2), self.weight) + self.bias.view(1, -1, 1, 1)
        return self.head(F.relu(y))


class _Slots(nn.Module):
    """Slots compete for the inputs, and are updated by a recurrent cell and an MLP, round by round (slot attention)."""

    def __init__(self, width: int = 8, slots: int = 3) -> None:
        super().__init__()
        self.first, self.slots = nn.Linear(5, width), nn.Parameter(torch.randn(1, slots, width))
        self.seen, self.own, self.inner = (nn.LayerNorm(width) for _ in range(3))
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.cell, self.head = nn.GRUCell(width, width), nn.Linear(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 12), nn.ReLU(inplace=True), nn.Linear(12, width))

    def forward(self, x: torch.Tensor) -> Any:
        x = self.seen(self.first(x))
        k, v, slots = self.k(x), self.v(x), self.slots.expand(x.size(0), -1, -1)
        for _ in range(2):
            before = slots
            scores = torch.einsum("bid,bjd->bij", self.q(self.own(slots)), k) * k.size(-1) ** -0.5
            shares = scores.softmax(dim=1) + 1e-8
            seen = torch.einsum("bjd,bij->bid", v, shares / shares.sum(-1, keepdim=True))
            slots = self.cell(seen.flatten(0, 1), before.flatten(0, 1)).view_as(before)
            slots = slots + self.mlp(self.inner(slots))
        return self.head(slots)


class _NormedGates(nn.Module):
    """A recurrent cell with one layer norm over all gates that the input makes, and one over those of the state."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width, self.read, self.loop = width, nn.Linear(4, 3 * width), nn.Linear(width, 3 * width, bias=False)
        self.norm_read, self.norm_loop, self.head = (
            nn.LayerNorm(3 * width),
            nn.LayerNorm(3 * width),
            nn.Linear(width, 2),
        )

    def forward(self, x: torch.Tensor) -> Any:
        hidden = x.new_zeros(x.size(0), self.width)
        for step in range(x.size(1)):
            read, loop = self.norm_read(self.read(x[:, step])), self.norm_loop(self.loop(hidden))
            (r, z, n), (r_loop, z_loop, n_loop) = read.chunk(3, 1), loop.chunk(3, 1)
            z = torch.sigmoid(z + z_loop)
            hidden = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_loop) * n_loop) + z * hidden
        return self.head(hidden)


class _Transducer(nn.Module):
    """Frames by an LSTM, what was said so far by a GRU, joined for each pair of places (RNN-T)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.embed, self.predictor = (
            nn.LSTM(4, 6, batch_first=True),
            nn.Embedding(5, 6),
            nn.GRU(6, 7, batch_first=True),
        )
        self.heard, self.said, self.joint = nn.Linear(6, 8), nn.Linear(7, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> Any:
        heard = self.heard(self.encoder(x)[0]).unsqueeze(2)
        said = self.said(self.predictor(self.embed(tokens))[0]).unsqueeze(1)
        return self.joint(torch.tanh(heard + said)).log_softmax(-1)


class _SetTransformer(nn.Module):
    """Induced points attend to a set and are attended to by it; a seed pools it. Heads are laid along the batch."""

    class Block(nn.Module):
        """Attention of one set to another, and an MLP, each behind what it adds to."""

        def __init__(self, queries: int, keys: int, width: int = 8) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(queries, width), nn.Linear(keys, width), nn.Linear(keys, width)
            self.out, self.norm1, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            q, k, v = self.q(x), self.k(y), self.v(y)
            queries, keys, values = (torch.cat(torch.split(part, 4, 2), 0) for part in (q, k, v))
            shares = torch.softmax(queries.bmm(keys.transpose(1, 2)) / math.sqrt(8), 2)
            mixed = self.norm1(torch.cat(torch.split(queries + shares.bmm(values), q.size(0), 0), 2))
            return self.norm2(mixed + F.relu(self.out(mixed)))

    def __init__(self) -> None:
        super().__init__()
        self.points, self.seed = nn.Parameter(torch.randn(1, 3, 8)), nn.Parameter(torch.randn(1, 1, 8))
        self.gather, self.spread, self.pool = self.Block(8, 4), self.Block(4, 8), self.Block(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        points = self.gather(self.points.repeat(x.size(0), 1, 1), x)
        return self.head(self.pool(self.seed.repeat(x.size(0), 1, 1), self.spread(x, points)).squeeze(1))


class _ExponentialGates(nn.Module):
    """A recurrent cell whose gates are exponentials, held in bounds by their running maximum (the sLSTM of xLSTM)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width, self.read, self.loop = width, nn.Linear(5, 4 * width), nn.Linear(width, 4 * width, bias=False)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> Any:
        hidden = memory = largest = x.new_zeros(x.size(0), self.width)
        weight, states = torch.ones_like(memory), []
        for step in range(x.size(1)):
            z, i, f, o = (self.read(x[:, step]) + self.loop(hidden)).chunk(4, -1)
            f = F.logsigmoid(f) + largest
            largest = torch.maximum(f, i)
            i, f = torch.exp(i - largest), torch.exp(f - largest)
            memory, weight = f * memory + i * torch.tanh(z), f * weight + i
            hidden = torch.sigmoid(o) * (memory / weight.clamp(min=1e-6))
            states.append(hidden)
        return self.head(torch.stack(states, 1))


_Built = tuple[nn.Module, tuple[torch.Tensor, ...]]

RECENT: dict[str, Callable[[], _Built]] = {
    "splines": lambda: (_Splines(), (2 * torch.rand(3, 4) - 1,)),
    "spline-flow": lambda: (_SplineFlow(), (torch.randn(3, 3), torch.randn(3, 2))),
    "deformable": lambda: (_Deformable(), (torch.randn(2, 2, 6, 5),)),
    "slots": lambda: (_Slots(), (torch.randn(2, 6, 5),)),
    "normed-gates": lambda: (_NormedGates(), (torch.randn(2, 3, 4),)),
    "transducer": lambda: (_Transducer(), (torch.randn(2, 4, 4), torch.randint(5, (2, 3)))),
    "set-transformer": lambda: (_SetTransformer(), (torch.randn(2, 5, 4),)),
    "exponential-gates": lambda: (_ExponentialGates(), (torch.randn(2, 3, 5),)),
}
"""By name, a model and its example inputs, drawn from torch's generator."""
