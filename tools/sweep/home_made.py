"""Small models in the manner in which people write them at home, each of another kind.

`home-made:NAME` stands for a row in the sweep. None is like a test's, and nothing in graphgrow knows of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from tools.sweep.home_made_classes import CLASSES
from tools.sweep.home_made_kinds import KINDS
from tools.sweep.home_made_recent import RECENT
from tools.sweep.home_made_structures import STRUCTURES

HOME_MADE = "home-made"

Run = Callable[..., Any]
Members = dict[str, Any]  # modules, parameters, and tensors that become buffers


class Made(nn.Module):
    """A model from a function of itself and its inputs, with modules, parameters and buffers by name."""

    def __init__(self, run: Run, members: Members) -> None:
        super().__init__()
        for name, member in members.items():
            if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)
        self._run = run

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the function makes of the inputs."""
        return self._run(self, *inputs)


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    half = torch.cat([-b, a], -1)
    return x * torch.cat([angles.cos(), angles.cos()], -1) + half * torch.cat([angles.sin(), angles.sin()], -1)


def _rotary(m: Any, tokens: torch.Tensor) -> Any:
    x = m.embed(tokens)
    angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * m.frequencies
    q, k, v = (_heads(part, 2) for part in m.qkv(m.norm1(x)).chunk(3, -1))
    mixed = F.scaled_dot_product_attention(_turned(q, angles), _turned(k, angles), v, is_causal=True)
    x = x + m.out(mixed.transpose(1, 2).flatten(2))
    gate, up = m.up(m.norm2(x)).chunk(2, -1)
    x = x + m.down(F.silu(gate) * up)
    return x @ m.embed.weight.t()


def _alibi(m: Any, x: torch.Tensor) -> Any:
    q, k, v = (_heads(f(x), 4) for f in (m.q, m.k, m.v))
    places = torch.arange(x.shape[1])
    distance = (places[None] - places[:, None]).abs().to(x.dtype)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) - m.slopes * distance
    return m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


def _experts(m: Any, x: torch.Tensor) -> Any:
    chosen, places = m.router(x).topk(2, -1)
    weights = torch.zeros_like(m.router(x)).scatter(-1, places, chosen.softmax(-1))
    return m.head(x + sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(m.experts)))


def _wavenet(m: Any, x: torch.Tensor) -> Any:
    x = m.stem(x)
    skips = torch.zeros_like(x)
    for layer, out in zip(m.layers, m.outs, strict=True):
        a, b = layer(F.pad(x, (layer.dilation[0], 0))).chunk(2, 1)
        y = out(torch.tanh(a) * torch.sigmoid(b))
        x, skips = x + y, skips + y
    return m.head(F.relu(skips))


def _film(m: Any, x: torch.Tensor, condition: torch.Tensor) -> Any:
    scale, shift = m.film(condition).chunk(2, 1)
    y = m.norm(m.conv1(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return m.head(F.relu(m.conv2(F.relu(y))).mean((2, 3)))


def _attention_unet(m: Any, x: torch.Tensor) -> Any:
    a = m.down1(x)
    up = m.up(m.down2(F.max_pool2d(a, 2)))
    gate = torch.sigmoid(m.psi(F.relu(m.gate(up) + m.skip(a))))
    return m.head(m.merge(torch.cat([up, a * gate], 1)))


def _graph_convolution(m: Any, x: torch.Tensor, edges: torch.Tensor) -> Any:
    edges = edges + torch.eye(edges.shape[-1], dtype=edges.dtype)
    roots = edges.sum(-1, keepdim=True).rsqrt()
    edges = roots * edges * roots.transpose(-1, -2)
    return (edges @ m.last(torch.relu(edges @ m.first(x) + m.bias))).log_softmax(-1)


def _messages(m: Any, x: torch.Tensor, edges: torch.Tensor) -> Any:
    h = m.first(x)
    for _ in range(2):
        sent = m.message(torch.cat([h[edges[0]], h[edges[1]]], -1))
        h = m.cell(torch.zeros_like(h).index_add(0, edges[1], sent), h)
    return m.head(h)


def _perceiver(m: Any, x: torch.Tensor) -> Any:
    latents = m.latents.expand(x.shape[0], -1, -1)
    latents = latents + m.cross(latents, x, x, need_weights=False)[0]
    y = m.norm(latents)
    return m.head((latents + m.own(y, y, y)[0]).mean(1))


def _bahdanau(m: Any, x: torch.Tensor) -> Any:
    states, last = m.encoder(x)
    h = torch.tanh(m.bridge(torch.cat([last[0], last[1]], -1)))
    answers = []
    for _ in range(3):
        scores = m.score(torch.tanh(m.keys(states) + m.query(h).unsqueeze(1))).squeeze(-1)
        context = torch.bmm(scores.softmax(1).unsqueeze(1), states).squeeze(1)
        h = m.cell(context, h)
        answers.append(m.head(torch.cat([h, context], -1)))
    return torch.stack(answers, 1)


def _radiance(m: Any, x: torch.Tensor) -> Any:
    waves = (x[..., None] * m.octaves).flatten(-2)
    encoded = torch.cat([x, waves.sin(), waves.cos()], -1)
    h = F.relu(m.second(F.relu(m.first(encoded))))
    h = F.relu(m.third(torch.cat([h, encoded], -1)))
    return torch.sigmoid(m.colour(h)), F.softplus(m.density(h))


def _deep_fm(m: Any, fields: torch.Tensor) -> Any:
    fields = fields + m.offsets
    v = m.embed(fields)
    crossed = 0.5 * (v.sum(1) ** 2 - (v**2).sum(1)).sum(1, keepdim=True)
    return torch.sigmoid(m.linear(fields).sum(1) + crossed + m.deep(v.flatten(1)))


def _coupling(m: Any, x: torch.Tensor) -> Any:
    first, second = x.chunk(2, -1)
    volume = torch.zeros_like(x[..., 0])
    for net in m.nets:
        scale, shift = net(first).chunk(2, -1)
        first, second = second * torch.tanh(scale).exp() + shift, first
        volume = volume + torch.tanh(scale).sum(-1)
    return torch.cat([first, second], -1), volume


def _conformer(m: Any, x: torch.Tensor) -> Any:
    x = m.stem(x)
    x = x + 0.5 * m.feed(x)
    y = m.norm1(x)
    x = x + m.attention(y, y, y)[0]
    y = F.glu(m.wide(m.norm2(x).transpose(1, 2)), 1)
    return m.head(x + m.narrow(F.silu(m.batch_norm(m.depthwise(y)))).transpose(1, 2))


def _selective_scan(m: Any, x: torch.Tensor) -> Any:
    u, z = m.first(x).chunk(2, -1)
    step, (b, c) = F.softplus(m.step(u)), m.inputs(u).split(3, -1)
    decay, driven = torch.exp(-step.unsqueeze(-1) * m.rates.exp()), (step * u).unsqueeze(-1) * b.unsqueeze(2)
    state, seen = torch.zeros_like(decay[:, 0]), []
    for t in range(4):
        state = decay[:, t] * state + driven[:, t]
        seen.append((state * c[:, t].unsqueeze(1)).sum(-1))
    return m.last(torch.stack(seen, 1) * F.silu(z[:, :4]))


def _modulated(m: Any, x: torch.Tensor, style: torch.Tensor) -> Any:
    x = m.stem(x)
    batch, channels, height, width = x.shape
    weight = m.weight[None] * (m.style(style).view(batch, 1, channels, 1, 1) + 1)
    weight = weight * torch.rsqrt(weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
    out = weight.shape[1]
    flat = weight.reshape(batch * out, channels, 3, 3)
    y = F.conv2d(x.reshape(1, batch * channels, height, width), flat, padding=1, groups=batch)
    return m.head(F.relu(y.view(batch, out, height, width)))


def _pyramid(m: Any, x: torch.Tensor) -> Any:
    a = F.relu(m.conv1(x))
    b = F.relu(m.conv2(a))
    low = m.lateral2(b)
    high = m.lateral1(a) + F.interpolate(low, size=a.shape[-2:], mode="nearest")
    scores = [m.head(F.relu(m.tower(p))).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for p in (high, low)]
    return torch.cat(scores, 1)


def _checkpointed(m: Any, x: torch.Tensor) -> Any:
    x = m.stem(x)
    for block, gain in zip(m.blocks, m.gains, strict=True):
        x = x + gain * checkpoint(block, x, use_reentrant=False)
    return m.head(x)


def _soft_experts(m: Any, x: torch.Tensor) -> Any:
    x = m.stem(x)
    scores = torch.einsum("bnd,dep->bnep", x, m.slots)
    slots = torch.einsum("bnd,bnep->bepd", x, scores.softmax(1))
    done = torch.einsum("bepf,efd->bepd", F.gelu(torch.einsum("bepd,edf->bepf", slots, m.up)), m.down)
    return m.head(x + torch.einsum("bepd,bnep->bnd", done, scores.flatten(2).softmax(-1).view_as(scores)))


def _mlp(*sizes: int) -> nn.Sequential:
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _double_conv(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1, bias=False), nn.GroupNorm(2, b), nn.SiLU(),
        nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(),
    )  # fmt: skip


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / math.sqrt(shape[-1]))


def _branch() -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))


_Parts = Callable[[], tuple[Run, Members, tuple[torch.Tensor, ...]]]

MODELS: dict[str, _Parts] = {
    "rotary-decoder": lambda: (_rotary, {
        "embed": nn.Embedding(13, 16), "norm1": nn.RMSNorm(16), "norm2": nn.RMSNorm(16),
        "qkv": nn.Linear(16, 48, bias=False), "out": nn.Linear(16, 16), "up": nn.Linear(16, 48),
        "down": nn.Linear(24, 16), "frequencies": 10.0 ** -torch.arange(4)}, (torch.randint(13, (2, 6)),)),
    "alibi": lambda: (_alibi, {
        **{name: nn.Linear(8, 8) for name in ("q", "k", "v")}, "out": nn.Linear(8, 3),
        "slopes": 2.0 ** -torch.arange(4).view(4, 1, 1)}, (torch.randn(2, 6, 8),)),
    "top-k-experts": lambda: (_experts, {
        "router": nn.Linear(8, 3), "experts": nn.ModuleList(_mlp(8, 10, 8) for _ in range(3)), "head": nn.Linear(8, 2)},
        (torch.randn(2, 6, 8),)),
    "soft-experts": lambda: (_soft_experts, {
        "stem": nn.Linear(8, 6), "slots": _drawn(6, 3, 2), "up": _drawn(3, 6, 7), "down": _drawn(3, 7, 6),
        "head": nn.Linear(6, 2)}, (torch.randn(2, 6, 8),)),
    "wavenet": lambda: (_wavenet, {
        "stem": nn.Conv1d(3, 6, 1), "head": nn.Conv1d(6, 4, 1),
        "layers": nn.ModuleList(weight_norm(nn.Conv1d(6, 12, 2, dilation=2**i)) for i in range(3)),
        "outs": nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))}, (torch.randn(2, 3, 10),)),
    "film": lambda: (_film, {
        "conv1": nn.Conv2d(3, 6, 3, padding=1), "norm": nn.BatchNorm2d(6, affine=False), "film": nn.Linear(5, 12),
        "conv2": nn.Conv2d(6, 6, 3, padding=1), "head": nn.Linear(6, 2)}, (torch.randn(2, 3, 7, 6), torch.randn(2, 5))),
    "attention-unet": lambda: (_attention_unet, {
        "down1": _double_conv(3, 4), "down2": _double_conv(4, 8), "up": nn.ConvTranspose2d(8, 4, 2, 2),
        "gate": nn.Conv2d(4, 4, 1), "skip": nn.Conv2d(4, 4, 1), "psi": nn.Conv2d(4, 1, 1),
        "merge": _double_conv(8, 4), "head": nn.Conv2d(4, 2, 1)}, (torch.randn(2, 3, 8, 8),)),
    "graph-convolution": lambda: (_graph_convolution, {
        "first": nn.Linear(8, 10, bias=False), "bias": nn.Parameter(torch.zeros(10)), "last": nn.Linear(10, 4)},
        (torch.randn(2, 6, 8), (torch.rand(2, 6, 6) > 0.5).float())),
    "message-passing": lambda: (_messages, {
        "first": nn.Linear(8, 6), "message": _mlp(12, 8, 6), "cell": nn.GRUCell(6, 6), "head": nn.Linear(6, 2)},
        (torch.randn(7, 8), torch.randint(7, (2, 12)))),
    "perceiver": lambda: (_perceiver, {
        "latents": _drawn(1, 5, 6), "cross": nn.MultiheadAttention(6, 2, kdim=8, vdim=8, batch_first=True),
        "own": nn.MultiheadAttention(6, 3, batch_first=True), "norm": nn.LayerNorm(6), "head": nn.Linear(6, 3)},
        (torch.randn(2, 7, 8),)),
    "bahdanau": lambda: (_bahdanau, {
        "encoder": nn.GRU(8, 6, batch_first=True, bidirectional=True), "bridge": nn.Linear(12, 6),
        "keys": nn.Linear(12, 5), "query": nn.Linear(6, 5, bias=False), "score": nn.Linear(5, 1, bias=False),
        "cell": nn.GRUCell(12, 6), "head": nn.Linear(18, 4)}, (torch.randn(2, 7, 8),)),
    "radiance-field": lambda: (_radiance, {
        "first": nn.Linear(27, 12), "second": nn.Linear(12, 12), "third": nn.Linear(39, 12),
        "colour": nn.Linear(12, 3), "density": nn.Linear(12, 1), "octaves": 2.0 ** torch.arange(4)},
        (torch.randn(2, 5, 3),)),
    "deep-fm": lambda: (_deep_fm, {
        "embed": nn.Embedding(20, 5), "linear": nn.Embedding(20, 1), "deep": _mlp(15, 10, 1),
        "offsets": torch.tensor([0, 5, 12])}, (torch.randint(5, (4, 3)),)),
    "coupling-flow": lambda: (_coupling, {"nets": nn.ModuleList(_mlp(4, 10, 8) for _ in range(3))},
        (torch.randn(3, 8),)),
    "conformer": lambda: (_conformer, {
        "stem": nn.Linear(5, 8), "feed": _branch(), "norm1": nn.LayerNorm(8), "norm2": nn.LayerNorm(8),
        "attention": nn.MultiheadAttention(8, 2, batch_first=True), "wide": nn.Conv1d(8, 16, 1),
        "depthwise": nn.Conv1d(8, 8, 3, padding=1, groups=8), "batch_norm": nn.BatchNorm1d(8),
        "narrow": nn.Conv1d(8, 8, 1), "head": nn.Linear(8, 4)}, (torch.randn(2, 7, 5),)),
    "selective-scan": lambda: (_selective_scan, {
        "first": nn.Linear(8, 12), "rates": _drawn(6, 3), "step": nn.Linear(6, 6), "inputs": nn.Linear(6, 6),
        "last": nn.Linear(6, 4)}, (torch.randn(2, 6, 8),)),
    "modulated-convolution": lambda: (_modulated, {
        "stem": nn.Conv2d(3, 4, 1), "weight": _drawn(5, 4, 3, 3), "style": nn.Linear(6, 4), "head": nn.Conv2d(5, 2, 1)},
        (torch.randn(2, 3, 6, 7), torch.randn(2, 6))),
    "feature-pyramid": lambda: (_pyramid, {
        "conv1": nn.Conv2d(3, 4, 3, padding=1), "conv2": nn.Conv2d(4, 6, 3, 2, 1), "lateral1": nn.Conv2d(4, 5, 1),
        "lateral2": nn.Conv2d(6, 5, 1), "tower": nn.Conv2d(5, 7, 3, padding=1), "head": nn.Conv2d(7, 6, 1)},
        (torch.randn(2, 3, 6, 7),)),
    "checkpointed": lambda: (_checkpointed, {
        "stem": nn.Linear(5, 8), "blocks": nn.ModuleList(_branch() for _ in range(2)),
        "gains": nn.ParameterList(nn.Parameter(0.1 * torch.ones(8)) for _ in range(2)), "head": nn.Linear(8, 2)},
        (torch.randn(2, 6, 5),)),
}  # fmt: skip


def build_home_made(name: str, seed: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model of that name, and its example inputs; equal seeds give equal weights and inputs."""
    torch.manual_seed(seed)
    composed = CLASSES | KINDS | RECENT | STRUCTURES
    if name in composed:
        return composed[name]()
    run, members, inputs = MODELS[name]()
    return Made(run, members), inputs


def names() -> list[str]:
    """Of all of them."""
    return [*MODELS, *CLASSES, *KINDS, *RECENT, *STRUCTURES]
