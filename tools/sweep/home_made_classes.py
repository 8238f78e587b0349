"""Small models of modules within modules, as public code has them; each of another kind than those of `home_made`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class _Transform(nn.Module):
    """A matrix for each cloud of points, near the identity (PointNet's T-Net)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv1, self.conv2 = nn.Conv1d(size, 8, 1), nn.Conv1d(8, 12, 1)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm1d(8), nn.BatchNorm1d(12), nn.BatchNorm1d(7)
        self.linear1, self.linear2 = nn.Linear(12, 7), nn.Linear(7, size * size)

    def forward(self, x: torch.Tensor) -> Any:
        x = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, self.conv2.out_channels)
        x = self.linear2(F.relu(self.norm3(self.linear1(x))))
        identity = torch.eye(self.size, dtype=x.dtype).view(1, -1).repeat(x.size(0), 1)
        return (x + identity).view(-1, self.size, self.size)


class _PointNet(nn.Module):
    """Points (N, 3, count) to a class for each."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.mix = _Transform(3), _Transform(6)
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 10, 1), nn.Conv1d(16, 5, 1)
        self.norm1, self.norm2 = nn.BatchNorm1d(6), nn.BatchNorm1d(10)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.bmm(x.transpose(2, 1), self.turn(x)).transpose(2, 1)
        x = F.relu(self.norm1(self.conv1(x)))
        mixing = self.mix(x)
        local = torch.bmm(x.transpose(2, 1), mixing).transpose(2, 1)
        shape = self.norm2(self.conv2(local)).max(dim=2, keepdim=True)[0].repeat(1, 1, x.size(2))
        return self.conv3(torch.cat([local, shape], 1)).transpose(2, 1).log_softmax(-1), mixing


class _GraphAttention(nn.Module):
    """Two layers of attention along the edges of a dense adjacency matrix."""

    class Layer(nn.Module):
        """Scores from what each node sends and receives, minus infinity where there is no edge."""

        def __init__(self, inputs: int, outputs: int, heads: int) -> None:
            super().__init__()
            self.heads, self.outputs = heads, outputs
            self.weight = nn.Linear(inputs, outputs * heads, bias=False)
            self.sent, self.received = (
                nn.Parameter(torch.randn(heads, outputs)),
                nn.Parameter(torch.randn(heads, outputs)),
            )

        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> Any:
            batch, count, _ = x.shape
            z = self.weight(x).view(batch, count, self.heads, self.outputs)
            scores = (z * self.sent).sum(-1).unsqueeze(2) + (z * self.received).sum(-1).unsqueeze(1)
            scores = F.leaky_relu(scores, 0.2).masked_fill(edges.unsqueeze(-1) == 0, float("-inf"))
            mixed = torch.einsum("bijh,bjhf->bihf", scores.softmax(2), z)
            return mixed.reshape(batch, count, self.heads * self.outputs)

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.norm = self.Layer(5, 4, 3), self.Layer(12, 3, 2), nn.BatchNorm1d(12)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> Any:
        x = F.elu(self.layer1(x, edges))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(F.elu(self.layer2(x, edges)))


class _Residual(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> Any:
        return x + self.branch(x)


class _VectorQuantised(nn.Module):
    """An autoencoder whose code is the nearest entries of a table, with the gradient passed straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 6, 4, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1), _Residual(8, 4), nn.Conv2d(8, 5, 1)
        )
        self.table = nn.Embedding(9, 5)
        self.decoder = nn.Sequential(
            nn.Conv2d(5, 8, 3, 1, 1), _Residual(8, 4), nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.ReLU(), nn.Conv2d(6, 3, 1)
        )

    def forward(self, x: torch.Tensor) -> Any:
        z = self.encoder(x).permute(0, 2, 3, 1).contiguous()
        flat = z.view(-1, self.table.embedding_dim)
        squares = flat.pow(2).sum(1, keepdim=True) + self.table.weight.pow(2).sum(1)
        nearest = (squares - 2 * flat @ self.table.weight.t()).argmin(1)
        code = self.table(nearest).view(z.shape)
        loss = F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(code.detach(), z)
        code = z + (code - z).detach()
        return {"image": self.decoder(code.permute(0, 3, 1, 2).contiguous()), "loss": loss, "code": nearest}


class _MaskedAutoregressive(nn.Module):
    """Each output reads the inputs before it alone, by masks over the weights (MADE)."""

    class Masked(nn.Linear):
        """A linear map whose weight is multiplied by a mask (outputs, inputs)."""

        def __init__(self, mask: torch.Tensor) -> None:
            super().__init__(mask.shape[1], mask.shape[0])
            self.register_buffer("mask", mask.float())

        def forward(self, x: torch.Tensor) -> Any:
            return F.linear(x, self.weight * self.get_buffer("mask"), self.bias)

    def __init__(self) -> None:
        super().__init__()
        places, hidden = torch.arange(5), torch.arange(9) % 4
        self.first = self.Masked(hidden[:, None] >= places)
        self.second = self.Masked(hidden[:, None] >= hidden)
        self.third = self.Masked((places[:, None] > hidden).repeat(2, 1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.third(F.relu(self.second(F.relu(self.first(x))))).chunk(2, -1)


class _Level(nn.Module):
    """One level of a U-Net built from the inside out; what goes in is put beside what comes out."""

    def __init__(self, outer: int, inner: int, within: nn.Module | None, inputs: int = 0) -> None:
        super().__init__()
        down = nn.Conv2d(inputs or outer, inner, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(inner if within is None else 2 * inner, outer, 4, 2, 1)
        layers = [down, nn.ReLU(), up] if within is None else [down, nn.BatchNorm2d(inner), within, nn.ReLU(), up]
        self.outermost = bool(inputs)
        self.model = nn.Sequential(*layers, nn.Tanh()) if inputs else nn.Sequential(
            nn.LeakyReLU(0.2), *layers, nn.BatchNorm2d(outer), nn.Dropout(0.2)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class _SuperResolution(nn.Module):
    """Dense blocks within a residual, a pixel shuffle, and an enlarged copy of the input."""

    class Dense(nn.Module):
        """Three convolutions, each of which reads all before it."""

        def __init__(self, channels: int, growth: int) -> None:
            super().__init__()
            self.convs = nn.ModuleList(
                nn.Conv2d(channels + i * growth, growth if i < 2 else channels, 3, 1, 1) for i in range(3)
            )
            self.act = nn.LeakyReLU(0.2, inplace=True)

        def forward(self, x: torch.Tensor) -> Any:
            a = self.act(self.convs[0](x))
            b = self.act(self.convs[1](torch.cat((x, a), 1)))
            return x + 0.2 * self.convs[2](torch.cat((x, a, b), 1))

    def __init__(self) -> None:
        super().__init__()
        self.first, self.trunk, self.last = (nn.Conv2d(a, b, 3, 1, 1) for a, b in ((3, 6), (6, 6), (6, 3)))
        self.body, self.up = nn.Sequential(self.Dense(6, 4), self.Dense(6, 4)), nn.Conv2d(6, 24, 3, 1, 1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> Any:
        features = self.first(x)
        features = features + self.trunk(self.body(features))
        enlarged = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(F.leaky_relu(self.shuffle(self.up(features)), 0.2)) + enlarged


class _SpatialGating(nn.Module):
    """Patches, an MLP over tokens, and half of the features gated by a map of the other half over positions (gMLP)."""

    def __init__(self, width: int = 8, tokens: int = 16) -> None:
        super().__init__()
        self.stem, self.norm1, self.norm2 = nn.Conv2d(3, width, 2, 2), nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(tokens, 10), nn.GELU(), nn.Linear(10, tokens))
        self.wide, self.gate_norm, self.narrow = nn.Linear(width, 12), nn.LayerNorm(6), nn.Linear(6, width)
        self.gate, self.head = nn.Conv1d(tokens, tokens, 1), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.mix(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        u, v = F.gelu(self.wide(self.norm2(x))).chunk(2, dim=-1)
        return self.head((x + self.narrow(u * self.gate(self.gate_norm(v)))).mean(1))


class _Retention(nn.Module):
    """Scores that decay with distance, another rate for each head, in place of a softmax (RetNet)."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.embed, self.head = heads, nn.Embedding(11, width), nn.Linear(width, 11)
        self.q, self.k, self.v, self.gate, self.out = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.norm, self.group_norm = nn.LayerNorm(width), nn.GroupNorm(heads, width, affine=False)
        self.register_buffer("rates", 1 - 2.0 ** (-3 - torch.arange(heads, dtype=torch.float)))

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        batch, count, width = x.shape
        y = self.norm(x)
        q, k, v = (f(y).view(batch, count, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        at = torch.arange(count)
        rates = self.get_buffer("rates")[:, None, None]
        decay = torch.where(at[:, None] >= at, rates ** (at[:, None] - at).clamp(min=0).to(x.dtype), 0.0)
        mixed = ((q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) * decay) @ v
        mixed = self.group_norm(mixed.transpose(1, 2).reshape(batch * count, width)).reshape(batch, count, width)
        return self.head(x + self.out(F.silu(self.gate(y)) * mixed))


class _TimeMixing(nn.Module):
    """A running weighted mean of values, and squares of a ReLU behind a gate (RWKV)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Embedding(13, width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix_k, self.mix_v, self.decay, self.bonus = (nn.Parameter(torch.rand(width)) for _ in range(4))
        self.key, self.value, self.receptance, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 12, bias=False), nn.Linear(12, width, bias=False)
        self.gate, self.head = nn.Linear(width, width, bias=False), nn.Linear(width, 13, bias=False)
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        y = self.norm1(x)
        before = self.shift(y)
        k = self.key(y * self.mix_k + before * (1 - self.mix_k))
        v = self.value(y * self.mix_v + before * (1 - self.mix_v))
        above, below, seen = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
        fading = torch.exp(-torch.exp(self.decay))
        for t in range(x.shape[1]):
            now = torch.exp(self.bonus + k[:, t])
            seen.append((above + now * v[:, t]) / (below + now))
            above, below = fading * above + torch.exp(k[:, t]) * v[:, t], fading * below + torch.exp(k[:, t])
        x = x + self.out(torch.sigmoid(self.receptance(y)) * torch.stack(seen, 1))
        y = self.norm2(x)
        return self.head(x + torch.sigmoid(self.gate(y)) * self.down(torch.square(torch.relu(self.up(y)))))


class _SpeechDecoder(nn.Module):
    """Convolutions and a bidirectional LSTM over text; two LSTM cells that attend to it (Tacotron 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(12, 8), nn.LSTM(8, 4, batch_first=True, bidirectional=True)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(2)
        )
        self.prenet = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Dropout(0.5))
        self.query, self.keys, self.score = (nn.Linear(a, b, bias=False) for a, b in ((7, 5), (8, 5), (5, 1)))
        self.attention, self.decoder = nn.LSTMCell(14, 7), nn.LSTMCell(15, 6)
        self.frame, self.stop = nn.Linear(14, 3), nn.Linear(14, 1)

    def forward(self, text: torch.Tensor, frames: torch.Tensor) -> Any:
        x = self.embed(text).transpose(1, 2)
        for conv in self.convs:
            x = conv(x)
        memory, _ = self.lstm(x.transpose(1, 2))
        keys, context = self.keys(memory), memory.new_zeros(text.size(0), 8)
        first = (memory.new_zeros(text.size(0), 7), memory.new_zeros(text.size(0), 7))
        second = (memory.new_zeros(text.size(0), 6), memory.new_zeros(text.size(0), 6))
        answers, stops = [], []
        for t in range(frames.size(1)):
            first = self.attention(torch.cat((self.prenet(frames[:, t]), context), -1), first)
            scores = self.score(torch.tanh(self.query(first[0].unsqueeze(1)) + keys)).squeeze(-1)
            context = torch.bmm(scores.softmax(1).unsqueeze(1), memory).squeeze(1)
            second = self.decoder(torch.cat((first[0], context), -1), second)
            state = torch.cat((second[0], context), -1)
            answers.append(self.frame(state))
            stops.append(self.stop(state))
        return torch.stack(answers, 1), torch.cat(stops, 1)


class _TextRecognition(nn.Module):
    """A strip of text through convolutions to columns, and through two LSTMs to letters (CRNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2), nn.Conv2d(4, 6, 3, 1, 1), nn.BatchNorm2d(6),
            nn.ReLU(True), nn.MaxPool2d((2, 2), (2, 1), (0, 1)), nn.Conv2d(6, 6, 2, 1, 0), nn.ReLU(True),
        )  # fmt: skip
        self.lstm1, self.lstm2 = nn.LSTM(6, 5, bidirectional=True), nn.LSTM(5, 5, bidirectional=True)
        self.linear1, self.linear2 = nn.Linear(10, 5), nn.Linear(10, 7)

    def forward(self, x: torch.Tensor) -> Any:
        columns = self.maps(x)
        assert columns.size(2) == 1, "the height of the maps must be 1"
        y = columns.squeeze(2).permute(2, 0, 1)
        for lstm, linear in ((self.lstm1, self.linear1), (self.lstm2, self.linear2)):
            states, _ = lstm(y)
            length, batch, width = states.size()
            y = linear(states.view(length * batch, width)).view(length, batch, -1)
        return y.log_softmax(2)


class _GlobalResponse(nn.Module):
    """ConvNeXt V2: large depthwise kernels, a norm of each channel's response, branches dropped by hand in training."""

    class Block(nn.Module):
        """One residual block."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
            self.norm, self.up, self.down = nn.LayerNorm(channels), nn.Linear(channels, 16), nn.Linear(16, channels)
            self.gain, self.shift = nn.Parameter(torch.zeros(1, 1, 1, 16)), nn.Parameter(torch.zeros(1, 1, 1, 16))

        def forward(self, x: torch.Tensor) -> Any:
            y = F.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
            response = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
            y = self.gain * (y * response / (response.mean(dim=-1, keepdim=True) + 1e-6)) + self.shift + y
            y = self.down(y).permute(0, 3, 1, 2)
            if self.training:
                y = y * y.new_empty((y.shape[0],) + (1,) * (y.ndim - 1)).bernoulli_(0.9) / 0.9
            return x + y

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 2, 2), nn.Sequential(self.Block(8), self.Block(8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


class _Aggregation(nn.Module):
    """Messages along edges, summed, averaged and maximised at each node (principal neighbourhood aggregation)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.message, self.update, self.head = (nn.Linear(a, 6) for a in (4, 12, 24, 6))

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> Any:
        h = self.encoder(x)
        sent = F.relu(self.message(torch.cat([h[edges[0]], h[edges[1]]], -1)))
        target = edges[1].unsqueeze(-1).expand_as(sent)
        empty = torch.zeros(x.size(0), sent.size(1), dtype=sent.dtype)
        total = empty.scatter_add(0, target, sent)
        mean = empty.scatter_reduce(0, target, sent, reduce="mean", include_self=False)
        most = empty.scatter_reduce(0, target, sent, reduce="amax", include_self=False)
        return self.head(h + self.update(torch.cat([h, total, mean, most], -1)))


def _dense_edges() -> torch.Tensor:
    return torch.maximum((torch.rand(2, 6, 6) > 0.5).float(), torch.eye(6))


def _image_to_image() -> nn.Module:
    return _Level(3, 4, _Level(4, 6, _Level(6, 8, None)), inputs=3)


_Built = tuple[nn.Module, tuple[torch.Tensor, ...]]

CLASSES: dict[str, Callable[[], _Built]] = {
    "point-net": lambda: (_PointNet(), (torch.randn(2, 3, 9),)),
    "graph-attention": lambda: (_GraphAttention(), (torch.randn(2, 6, 5), _dense_edges())),
    "vector-quantised": lambda: (_VectorQuantised(), (torch.randn(2, 3, 8, 8),)),
    "masked-autoregressive": lambda: (_MaskedAutoregressive(), (torch.randn(2, 5),)),
    "image-to-image": lambda: (_image_to_image(), (torch.randn(2, 3, 16, 16),)),
    "super-resolution": lambda: (_SuperResolution(), (torch.randn(2, 3, 6, 5),)),
    "spatial-gating": lambda: (_SpatialGating(), (torch.randn(2, 3, 8, 8),)),
    "retention": lambda: (_Retention(), (torch.randint(11, (2, 6)),)),
    "time-mixing": lambda: (_TimeMixing(), (torch.randint(13, (2, 5)),)),
    "speech-decoder": lambda: (_SpeechDecoder(), (torch.randint(12, (2, 6)), torch.randn(2, 3, 3))),
    "text-recognition": lambda: (_TextRecognition(), (torch.randn(2, 1, 8, 14),)),
    "global-response": lambda: (_GlobalResponse(), (torch.randn(2, 3, 12, 10),)),
    "aggregation": lambda: (_Aggregation(), (torch.randn(6, 4), torch.randint(6, (2, 11)))),
}
"""By name, a model and its example inputs, drawn from torch's generator."""
