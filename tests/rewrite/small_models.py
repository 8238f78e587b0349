"""Small models, each around one thing that decides what may grow, with what is expected to be offered."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.layers import RootMeanSquareNorm


class Forward(nn.Module):
    """A model from a function of itself and its input, with modules and parameters by name."""

    def __init__(self, run: Callable[[Any, Any], Any], **members: nn.Module | torch.Tensor) -> None:
        super().__init__()
        for name, member in copy.deepcopy(members).items():  # a model may be built many times
            setattr(self, name, member if isinstance(member, nn.Module) else nn.Parameter(member))
        self._run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self._run(self, x)


@dataclass(frozen=True)
class Expected:
    """A model, its input, and the groups that `widen` and `split` are expected to offer, and no others."""

    label: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    widen: str
    split: str

    def __str__(self) -> str:
        return self.label


def _between(*layers: nn.Module) -> Callable[[], nn.Module]:
    """first: 3 -> 4, the layers, last: 4 -> 2."""
    return lambda: Forward(
        lambda m, x: m.last(m.mid(m.first(x))), first=nn.Linear(3, 4), mid=nn.Sequential(*layers), last=nn.Linear(4, 2)
    )


def _conv(*layers: nn.Module, channels: int = 4) -> Callable[[], nn.Module]:
    return lambda: Forward(
        lambda m, x: m.last(m.mid(m.first(x))),
        first=nn.Conv1d(2, channels, 3, padding=1),
        mid=nn.Sequential(*layers),
        last=nn.Conv1d(channels, 2, 1),
    )


def _hidden(run: Callable[[Any, Any], Any], **members: Any) -> Callable[[], nn.Module]:
    return lambda: Forward(run, first=nn.Linear(3, 4), **members)


def _attention() -> nn.Module:
    def run(m: Any, x: Any) -> Any:
        q, k, v = (y.unflatten(-1, (2, -1)).transpose(1, 2) for y in m.qkv(x).chunk(3, -1))
        return m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))

    return Forward(run, qkv=nn.Linear(3, 24), out=nn.Linear(8, 3))


def _tied() -> nn.Module:
    """An embedding whose table is the head's weight as well: what is written there is read there."""
    model = Forward(lambda m, x: m.head(m.embed(x.argmax(-1))), embed=nn.Embedding(3, 4), head=nn.Linear(4, 3))
    model.head.weight = model.embed.weight
    return model


def _tied_stream() -> nn.Module:
    """The same, with positions added and a norm between: the norm's zeros are read by the table's means."""
    model = Forward(lambda m, x: m.head(m.norm(m.embed(x.argmax(-1)) + m.pos)), embed=nn.Embedding(3, 4),
                    pos=torch.randn(5, 4), norm=nn.LayerNorm(4), head=nn.Linear(4, 3))  # fmt: skip
    model.head.weight = model.embed.weight
    return model


def _tied_post_norm() -> nn.Module:
    """As in BERT: the head reads the last norm, whose weight and bias are shared where the table is copied."""

    def run(m: Any, x: Any) -> Any:
        x = m.norm1(m.embed(x.argmax(-1)))
        return m.head(m.norm2(x + m.b(F.gelu(m.a(x)))))

    model = Forward(run, embed=nn.Embedding(3, 4), norm1=nn.LayerNorm(4), a=nn.Linear(4, 6), b=nn.Linear(6, 4),
                    norm2=nn.LayerNorm(4), head=nn.Linear(4, 3))  # fmt: skip
    model.head.weight = model.embed.weight
    return model


def _tied_behind_an_offset() -> nn.Module:
    """A norm that scales by 1 + w: shares of w are no shares of that."""
    model = Forward(lambda m, x: m.head(m.norm(m.embed(x.argmax(-1)))), embed=nn.Embedding(3, 4),
                    norm=RootMeanSquareNorm(4, offset=1.0), head=nn.Linear(4, 3))  # fmt: skip
    model.head.weight = model.embed.weight
    return model


def _tied_norm_bias() -> nn.Module:
    """The bias of a layer norm is a bias elsewhere too: it cannot be zero here and a mean there."""
    model = Forward(lambda m, x: m.last(m.norm(m.first(x))), first=nn.Linear(3, 4), norm=nn.LayerNorm(4),
                    last=nn.Linear(4, 2))  # fmt: skip
    model.first.bias = model.norm.bias
    return model


def _gate() -> nn.Module:
    def run(m: Any, x: Any) -> Any:
        maps = m.first(x)
        gate = torch.sigmoid(m.up(torch.relu(m.down(maps.mean(-1)))))
        return m.last(maps * gate.unsqueeze(-1))

    return Forward(run, first=nn.Conv1d(2, 4, 3), down=nn.Linear(4, 3), up=nn.Linear(3, 4), last=nn.Conv1d(4, 2, 1))


def _residual_norms() -> nn.Module:
    """Pre-norm residual blocks on a stream with a position table."""

    def run(m: Any, x: Any) -> Any:
        x = m.first(x) + m.pos
        x = x + m.b(F.gelu(m.a(m.norm1(x))))
        return m.last(m.norm2(x))

    return Forward(run, first=nn.Linear(3, 4), pos=torch.randn(5, 4), norm1=nn.LayerNorm(4), a=nn.Linear(4, 6),
                   b=nn.Linear(6, 4), norm2=nn.LayerNorm(4), last=nn.Linear(4, 2))  # fmt: skip


def _spelled_norm(axes: int, centre: Callable[[Any, Any], Any] = torch.sub) -> Callable[[], nn.Module]:
    """A layer norm in arithmetic, over the channels of (N, C, L) alone, or flattened with the positions."""

    def run(m: Any, x: Any) -> Any:
        y = m.first(x).transpose(1, 2).flatten(-axes)
        y = centre(y, y.mean(-1, keepdim=True))
        return m.last(y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5))

    return lambda: Forward(run, first=nn.Conv1d(2, 4, 1), last=nn.Linear(4 * 5 ** (axes - 1), 2))


def _side_by_side(run: Callable[[Any, Any], Any]) -> Callable[[], nn.Module]:
    """A function of two layers' outputs side by side, of which one may grow."""
    return _hidden(lambda m, x: m.last(run(m, torch.cat([m.first(x), m.second(x)], -1))), second=nn.Linear(3, 2),
                   last=nn.Linear(6, 2))  # fmt: skip


EXPECTED = [
    Expected("relu", _between(nn.ReLU()), (2, 3), "first", "first"),
    Expected("exp", _hidden(lambda m, x: m.last(m.first(x).exp()), last=nn.Linear(4, 2)), (2, 3), "first", "first"),
    Expected("log", _hidden(lambda m, x: m.last(m.first(x).sigmoid().log()), last=nn.Linear(4, 2)), (2, 3), "",
             "first"),
    Expected("largest", _hidden(lambda m, x: m.first(x).amax(-1)), (2, 3), "", "first"),
    Expected("softmax", _between(nn.Softmax(-1)), (2, 3), "", ""),
    Expected("layer-norm", _between(nn.LayerNorm(4)), (2, 3), "first", "first"),
    Expected("layer-norm-behind-relu", _between(nn.ReLU(), nn.LayerNorm(4)), (2, 3), "", "first"),
    Expected("layer-norm-bare", _between(nn.LayerNorm(4, elementwise_affine=False)), (2, 3), "first", "first"),
    Expected("rms-norm", _between(nn.GELU(), nn.RMSNorm(4, eps=1e-5)), (2, 3), "first", "first"),
    Expected("rms-norm-behind-relu", _between(nn.ReLU(), nn.RMSNorm(4, eps=1e-5)), (2, 3), "", "first"),
    Expected("rms-norm-behind-relu-and-more", _hidden(lambda m, x: m.last(m.norm(m.first(x).relu()) + m.first(x)),
             norm=nn.RMSNorm(4, eps=1e-5), last=nn.Linear(4, 2)), (2, 3), "first", "first"),
    Expected("rms-norm-behind-gated-relu", _hidden(
        lambda m, x: m.last(m.norm(m.first(x).relu().square() * m.second(x))), second=nn.Linear(3, 4),
        norm=nn.RMSNorm(4, eps=1e-5), last=nn.Linear(4, 2)), (2, 3), "first", "first"),
    Expected("rms-norm-behind-sigmoid", _between(nn.Sigmoid(), nn.RMSNorm(4, eps=1e-5)), (2, 3), "", "first"),
    Expected("batch-norm", _between(nn.BatchNorm1d(4), nn.PReLU(4)), (5, 3), "first", "first"),
    Expected("group-norm", _conv(nn.GroupNorm(2, 4)), (2, 2, 5), "first:groups", "first:groups first:group_width"),
    Expected("group-norm-of-one", _conv(nn.GroupNorm(1, 4)), (2, 2, 5), "", "first"),
    Expected("dropout", _between(nn.Dropout(0.5)), (2, 3), "first", "first"),
    Expected("grouped", _conv(nn.Conv1d(4, 4, 3, groups=2)), (2, 2, 5),
             "first:groups first:group_width mid.0:group_width", "first:groups first:group_width mid.0:group_width"),
    Expected("groups-of-two-branches", lambda: Forward(
        lambda m, x: m.last(torch.cat([m.first(x), m.second(x)], 1)),
        first=nn.Conv1d(2, 2, 1), second=nn.Conv1d(2, 2, 1), last=nn.Conv1d(4, 2, 1, groups=2)), (2, 2, 5),
        "first:group_width", "first:group_width"),
    Expected("depthwise", _conv(nn.Conv1d(4, 4, 3, groups=4)), (2, 2, 5), "first", "first"),
    Expected("transposed", _conv(nn.ConvTranspose1d(4, 4, 2, stride=2)), (2, 2, 5), "first mid.0", "first mid.0"),
    Expected("flatten", _hidden(lambda m, x: m.last(m.first(x).flatten(1)), last=nn.Linear(20, 2)), (2, 5, 3),
             "first", "first"),
    Expected("attention", _attention, (2, 5, 3), "qkv:heads qkv:head_width qkv:value_width",
             "qkv:heads qkv:head_width qkv:value_width"),
    Expected("gate", _gate, (2, 2, 6), "first down", "first down"),
    Expected("sum", _hidden(lambda m, x: m.first(x).sum(-1)), (2, 3), "first", "first"),
    Expected("sum-behind-sigmoid", _hidden(lambda m, x: m.first(x).sigmoid().sum(-1)), (2, 3), "", ""),
    Expected("complex-sum", _hidden(lambda m, x: m.first(x).to(torch.complex128).sum(-1).abs()), (2, 3), "first",
             "first"),
    Expected("mean", _hidden(lambda m, x: m.first(x).mean(-1)), (2, 3), "first", "first"),
    Expected("cat", _hidden(lambda m, x: m.last(torch.cat([m.first(x), m.second(x)], -1)), second=nn.Linear(3, 2),
                            last=nn.Linear(6, 2)), (2, 3), "first second", "first second"),
    Expected("chunk", _hidden(lambda m, x: m.last(m.first(x).chunk(2, -1)[0].tanh()), last=nn.Linear(2, 2)), (2, 3),
             "first:0 first:1", "first:0 first:1"),
    Expected("mean-of-two-parts", _hidden(lambda m, x: torch.cat([m.first(x), m.second(x)], -1).mean(-1),
                                          second=nn.Linear(3, 2)), (2, 3), "first second", "first second"),
    Expected("two-parts-minus-their-mean", _side_by_side(lambda m, y: y - y.mean(-1, keepdim=True)), (2, 3),
             "first second", ""),
    Expected("spelled-norm", _spelled_norm(1), (2, 2, 5), "first", "first"),
    Expected("spelled-norm-over-positions", _spelled_norm(2), (2, 2, 5), "", "first"),
    Expected("spelled-norm-minus-half-the-mean", _spelled_norm(1, functools.partial(torch.sub, alpha=0.5)), (2, 2, 5),
             "", "first"),
    Expected("direction", _hidden(lambda m, x: m.last(F.normalize(m.first(x), dim=-1, eps=9.0)), last=nn.Linear(4, 2)),
             (2, 3), "first", "first"),
    Expected("largest-of-masked-products", _hidden(lambda m, x: m.last(
        (m.first(x).masked_fill(x[..., :1] < x[..., :1].mean(1, keepdim=True), -torch.inf) * m.variance).amax(1)),
        variance=torch.rand(4), last=nn.Linear(4, 2)), (2, 5, 3), "", "first"),
    Expected("masked-softmax-over-positions", _hidden(lambda m, x: m.last(
        (m.first(x).masked_fill(x[..., :1] < -9, -torch.inf).softmax(1) * m.first(x)).sum(1)),
        last=nn.Linear(4, 2)), (2, 5, 3), "first", "first"),
    Expected("product-of-two", _hidden(lambda m, x: (m.first(x) * m.second(x)).sum(-1), second=nn.Linear(3, 4)), (2, 3),
             "first", "first"),
    Expected("square", _hidden(lambda m, x: m.first(x).square().sum(-1)), (2, 3), "", ""),
    Expected("tied-embedding", _tied, (2, 5, 3), "", ""),
    Expected("tied-stream", _tied_stream, (2, 5, 3), "pos:axis2", "pos:axis2"),
    Expected("tied-post-norm", _tied_post_norm, (2, 5, 3), "a", "norm1 a"),
    Expected("tied-behind-an-offset", _tied_behind_an_offset, (2, 5, 3), "", ""),
    Expected("residual-norms", _residual_norms, (2, 5, 3), "first a", "first a"),
    Expected("norm-weight-used-twice", _hidden(lambda m, x: m.last(m.norm(m.first(x))) + m.norm.weight.sum(),
                                               norm=nn.LayerNorm(4), last=nn.Linear(4, 2)), (2, 3), "", ""),
    Expected("norm-bias-used-twice", _tied_norm_bias, (2, 3), "", "first"),
    Expected("norm-weight-computed", _hidden(lambda m, x: m.last(F.layer_norm(m.first(x), (4,), m.w.exp())),
                                             w=torch.randn(4), last=nn.Linear(4, 2)), (2, 3), "", "first"),
    Expected("norm-over-two-parts", _hidden(lambda m, x: m.last(m.norm(torch.cat([m.first(x), m.second(x)], -1))),
                                            second=nn.Linear(3, 2), norm=nn.LayerNorm(6), last=nn.Linear(6, 2)), (2, 3),
             "", ""),
    Expected("norm-of-a-part", _hidden(lambda m, x: m.last(m.norm(m.first(x).chunk(2, -1)[0])), norm=nn.LayerNorm(2),
                                       last=nn.Linear(2, 2)), (2, 3), "first:0 first:1", "first:0 first:1"),
    Expected("grouped-residual-and-sum", lambda: Forward(
        lambda m, x: (m.last(m.a(x) + m.b(m.a(x))), m.a(x).sum(1)), a=nn.Conv1d(2, 4, 1),
        b=nn.Conv1d(4, 4, 3, padding=1, groups=2), last=nn.Conv1d(4, 2, 1)), (2, 2, 5), "a:groups a:group_width", ""),
]  # fmt: skip
