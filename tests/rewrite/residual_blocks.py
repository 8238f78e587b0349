"""Residual blocks in the spellings that people use: which can be closed by zeros, and which by a gate alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.store.names import import_torchvision
from tests.rewrite.small_models import Forward

C = 4
SEEDS = itertools.count()
Run = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Case:
    """A block over C features (or channels), and what of it is closed; None where nothing can be, and it is gated."""

    label: str
    closed: str | None
    run: Run
    members: dict[str, Any]
    maps: bool = False

    def __str__(self) -> str:
        return self.label

    def graph(self) -> Graph:
        """first: 3 -> C, the block as `block`, last: C -> 2; weights and statistics off their defaults."""
        torch.manual_seed(1)
        ends = (nn.Conv2d(3, C, 3), nn.Conv2d(C, 2, 1)) if self.maps else (nn.Linear(3, C), nn.Linear(C, 2))
        model = Forward(
            lambda m, x: m.last(m.block(m.first(x))),
            first=ends[0],
            block=Forward(self.run, **self.members),
            last=ends[1],
        )
        for part in model.modules():
            for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
                if tensor.is_floating_point() and "Norm" in type(part).__name__:
                    tensor.data = torch.rand_like(tensor) + 0.5
        shape = (4, 3, 6, 5) if self.maps else (4, 5, 3)
        return gg.trace(model.double(), torch.randn(shape, dtype=torch.float64))


def features(label: str, closed: str | None, run: Run, **members: Any) -> Case:
    """A case over features."""
    return Case(label, closed, run, members)


def maps(label: str, closed: str | None, run: Run, **members: Any) -> Case:
    """A case over maps."""
    return Case(label, closed, run, members, True)


def linear(bias: bool = True) -> nn.Linear:
    with seeded():
        return nn.Linear(C, C, bias=bias)


def conv(groups: int = 1) -> nn.Conv2d:
    with seeded():
        return nn.Conv2d(C, C, 3, padding=1, groups=groups, bias=False)


@contextmanager
def seeded() -> Iterator[None]:
    """Weights of their own for each layer, the same in each run: hard limits are flat for some weights by chance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(next(SEEDS))
        yield


def norm() -> nn.LayerNorm:
    return nn.LayerNorm(C)


def two_branches(m: Any, x: Any) -> Any:
    x = x + m.a(F.gelu(m.b(m.n1(x))))
    return x + m.c(F.gelu(m.d(m.n2(x))))


def basic_block(m: Any, x: Any) -> Any:
    return m.relu(m.bn2(m.c2(m.relu(m.bn1(m.c1(x))))).add_(x))  # fx takes `y += x` for an addition


def basic_block_of_functions(m: Any, x: Any) -> Any:
    return F.relu(torch.add(x, m.bn2(m.c2(torch.relu(m.bn1(m.c1(x)))))))


def convnext(m: Any, x: Any) -> Any:
    y = m.l2(F.gelu(m.l1(m.n(m.c(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
    return x + m.sd(m.gamma * y)


def mbconv(m: Any, x: Any) -> Any:
    y = F.silu(m.bn1(m.c1(x)))
    y = m.up(F.silu(m.down(y.mean((2, 3), keepdim=True)))).sigmoid() * y
    return m.sd(m.bn2(m.c2(y))) + x


def rms(x: Any) -> Any:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def clamped_end(m: Any, x: Any) -> Any:
    return m.act(x + m.l(F.gelu(x)))


def twice_added(m: Any, x: Any) -> Any:
    return m.l1(x) + x + m.l2(F.gelu(x))


def tokens_in_one_row(m: Any, x: Any) -> Any:
    """As the MLP of OPT's layers."""
    x = x + m.l1(x.tanh())
    row = x.reshape(-1, x.size(-1))
    return (row + m.l2(F.gelu(row))).view(x.shape)


def tokens_in_one_row_by_sizes(m: Any, x: Any) -> Any:
    n, length, width = x.shape
    row = x.view(n * length, width)
    return (row - m.l(F.gelu(row))).reshape(n, x.size(1), -1)


def tokens_in_another_order(m: Any, x: Any) -> Any:
    row = x.transpose(0, 1).reshape(-1, C)
    return (row + m.l(F.gelu(row))).view(x.shape)


import_torchvision()
from torchvision.ops import StochasticDepth  # noqa: E402  # needs the line above beside a torch of another build

CLOSED = [
    features("residual", "l2", lambda m, x: x + m.l2(F.gelu(m.l1(x))), l1=linear(), l2=linear()),
    features("branch first", "l2", lambda m, x: m.l2(F.gelu(m.l1(x))) + x, l1=linear(), l2=linear(False)),
    features("pre-norm", "l2", lambda m, x: x + m.l2(F.gelu(m.l1(m.n(x)))), n=norm(), l1=linear(), l2=linear()),
    features("two branches", "a c", two_branches, n1=norm(), n2=norm(), a=linear(), b=linear(), c=linear(), d=linear()),
    features("two in one sum", "l1 l2", twice_added, l1=linear(), l2=linear()),
    features("parallel branches", "l1 l2", lambda m, x: m.l1(F.gelu(x)) + m.l2(m.n(x)) + x, l1=linear(), l2=linear(),
             n=norm()),
    features("a difference of branches", "l1 l2", lambda m, x: x - (m.l1(F.gelu(x)) - m.l2(x)), l1=linear(),
             l2=linear()),
    features("a sum of branches behind a map", "l3", lambda m, x: x + m.l3(m.l1(x) + m.l2(x)), l1=linear(), l2=linear(),
             l3=linear()),
    features("weights that are turned", "w b", lambda m, x: x + (F.gelu(x) @ m.w.T + m.b), w=torch.randn(C, C),
             b=torch.randn(C)),
    features("weights that are turned by a method", "w", lambda m, x: x + torch.matmul(F.gelu(x), m.w.t()),
             w=torch.randn(C, C)),
    features("norm at the end of the branch", "n", lambda m, x: x + m.n(m.l(x)), n=norm(), l=linear()),
    features("map behind a map", "l2", lambda m, x: x + m.l2(m.l1(x)), l1=linear(), l2=linear(False)),
    features("dropout in the branch", "l", lambda m, x: x + m.drop(m.l(x)), l=linear(), drop=nn.Dropout(0.0)),
    features("odd activation behind the map", "l", lambda m, x: x + m.l(x).tanh(), l=linear()),
    features("limits around zero", "l", lambda m, x: x + m.t(m.l(x)), l=linear(), t=nn.Hardtanh(-1.0, 2.0)),
    features("gate first", "l", lambda m, x: x + m.g(x).sigmoid() * m.l(x), g=linear(), l=linear()),
    features("layer scale", "l", lambda m, x: x + m.l(F.gelu(x)) * m.gamma, l=linear(), gamma=torch.full((C,), 0.1)),
    features("half of the branch", "l", lambda m, x: x + m.l(F.gelu(x)) / 2, l=linear()),
    features("taken from the stream", "l", lambda m, x: x - m.l(F.gelu(x)), l=linear()),
    features("norm written out at the end", "w", lambda m, x: x + m.w * rms(m.l(F.gelu(x)).sigmoid()), l=linear(),
             w=torch.full((C,), 0.7)),
    features("identity on the stream", "l", lambda m, x: m.i(x) + m.l(x.relu()), i=nn.Identity(), l=linear()),
    features("idempotent end", "l", clamped_end, l=linear(), act=nn.ReLU6()),
    features("idempotent start", "l", lambda m, x: m.act(m.act(x) + m.l(x)), l=linear(), act=nn.Hardtanh(-0.5, 0.7)),
    features("RMS norm as language models write it", "n", lambda m, x: x + m.n(m.l(F.gelu(x))), l=linear(),
             n=RootMeanSquareNorm(C)),
    features("map as a function", "w", lambda m, x: x + F.linear(F.gelu(x), m.w), w=torch.randn(C, C)),
    features("the same with a bias", "w b", lambda m, x: x + F.linear(F.gelu(x), m.w, m.b).contiguous(),
             w=torch.randn(C, C), b=torch.randn(C)),
    features("GPT-2's maps", "w b", lambda m, x: x + torch.addmm(m.b, F.gelu(m.l(x)).view(-1, C), m.w).view(x.shape),
             l=linear(), w=torch.randn(C, C), b=torch.randn(C)),
    features("product with a matrix", "w", lambda m, x: x + m.drop(x.tanh() @ m.w), w=torch.randn(C, C),
             drop=nn.Dropout(0.0)),
    features("rolled and cut", "l", lambda m, x: x + torch.roll(m.l(F.pad(x, (0, 0, 0, 2))), 1, 1)[:, : x.shape[1]],
             l=linear()),
    features("tokens in one row", "l1 l2", tokens_in_one_row, l1=linear(), l2=linear()),
    features("tokens in one row, by sizes", "l", tokens_in_one_row_by_sizes, l=linear()),
    maps("torchvision's basic block", "bn2", basic_block, c1=conv(), c2=conv(), bn1=nn.BatchNorm2d(C),
         bn2=nn.BatchNorm2d(C), relu=nn.ReLU(inplace=True)),
    maps("the same of functions", "bn2", basic_block_of_functions, c1=conv(), c2=conv(), bn1=nn.BatchNorm2d(C),
         bn2=nn.BatchNorm2d(C)),
    maps("torchvision's ConvNeXt", "l2", convnext, c=conv(C), n=norm(), l1=linear(), l2=linear(),
         sd=StochasticDepth(0.0, "row"), gamma=torch.full((C, 1, 1), 0.3)),
    maps("MBConv", "bn2", mbconv, c1=conv(), c2=conv(2), bn1=nn.BatchNorm2d(C), bn2=nn.BatchNorm2d(C),
         down=nn.Conv2d(C, 2, 1), up=nn.Conv2d(2, C, 1), sd=StochasticDepth(0.0, "batch")),
    maps("group norm", "n", lambda m, x: x + m.n(m.c(F.silu(x))), c=conv(), n=nn.GroupNorm(2, C)),
]  # fmt: skip


def alias_of_what_is_overwritten(m: Any, x: Any) -> Any:
    kept, branch = m.i(x), m.l(x.clone())
    x.mul_(2)
    return kept + branch


def item_assignment(m: Any, x: Any) -> Any:
    branch = m.l(F.gelu(x.clone()))
    x[..., 0] = 0.5
    return x + branch


def activated_in_place(m: Any, x: Any) -> Any:
    x.relu_()
    return m.l(F.gelu(x)) + x


def zero_branch_overwritten(m: Any, x: Any) -> Any:
    branch = m.l(F.gelu(x))
    kept = m.i(branch)
    branch.add_(1)
    return x + kept


def post_norm_in_place(m: Any, x: Any) -> Any:
    return m.n(x.add_(m.l2(F.gelu(m.l1(x.clone())))))


def shared_weight() -> dict[str, nn.Linear]:
    first, second = linear(), linear()
    second.weight = first.weight
    return {"l1": first, "l2": second}


GATED = [
    features("not residual", None, lambda m, x: m.l(F.gelu(x)), l=linear()),
    features("post-norm", None, lambda m, x: m.n(x + m.l(F.gelu(x))), n=norm(), l=linear()),
    features("post-norm in place", None, post_norm_in_place, n=norm(), l1=linear(), l2=linear()),
    features("activation of a stream without", None, lambda m, x: F.relu(x) + m.l(x), l=linear()),
    features("activation in place of a stream without", None, activated_in_place, l=linear()),
    features("one of two branches in a sum is no map", None, lambda m, x: x + (m.l(x) + F.gelu(x)), l=linear()),
    features("tokens in another order", None, tokens_in_another_order, l=linear()),
    features("another activation", None, lambda m, x: F.relu6(F.relu(x) + m.l(x)), l=linear()),
    features("other limits", None, lambda m, x: m.a(m.b(x) + m.l(x)), l=linear(), a=nn.Hardtanh(-0.5, 0.7),
             b=nn.Hardtanh(-0.5, 0.6)),
    features("activation that is not idempotent", None, lambda m, x: F.leaky_relu(x + m.l(F.gelu(x))), l=linear()),
    features("dropout on the stream", None, lambda m, x: m.drop(x) + m.l(F.gelu(x)), l=linear(), drop=nn.Dropout(0.0)),
    features("factor on the stream", None, lambda m, x: x * 0.5 + m.l(F.gelu(x)), l=linear()),
    features("the stream twice", None, lambda m, x: x + x + m.l(F.gelu(x)), l=linear()),
    features("factor in the sum", None, lambda m, x: torch.add(m.l(F.gelu(x)), x, alpha=2), l=linear()),
    features("difference", None, lambda m, x: m.l(F.gelu(x)) - x, l=linear()),
    features("over the stream", None, lambda m, x: x + m.l(F.gelu(x)) / (1 + x.square()).mean(-1, keepdim=True),
             l=linear()),
    features("number added", None, lambda m, x: x + m.l(F.gelu(x)) + 1.0, l=linear()),
    features("parameter added", None, lambda m, x: x + m.l(F.gelu(x)) + m.b, l=linear(), b=torch.randn(C)),
    features("sigmoid behind the map", None, lambda m, x: x + m.l(F.gelu(x)).sigmoid(), l=linear()),
    features("softplus behind the map", None, lambda m, x: x + m.s(m.l(F.gelu(x))), l=linear(), s=nn.Softplus()),
    features("limits off zero", None, lambda m, x: x + m.t(m.l(F.gelu(x))), l=linear(), t=nn.Hardtanh(0.2, 1.0)),
    features("limits off zero, as a function", None, lambda m, x: x + F.hardtanh(m.l(F.gelu(x)), 0.2, 1.0), l=linear()),
    features("biased map behind, called twice", None, lambda m, x: x + m.l(F.gelu(m.l(x))), l=linear()),
    features("mean over what the map made", None, lambda m, x: x + m.l(F.gelu(x)).softmax(-1), l=linear()),
    features("turned stream", None, lambda m, x: x.flip(-1) + m.l(F.gelu(x)), l=linear()),
    features("alias of what is overwritten", None, alias_of_what_is_overwritten, i=nn.Identity(), l=linear()),
    features("item assignment", None, item_assignment, l=linear()),
    features("zero branch overwritten", None, zero_branch_overwritten, i=nn.Identity(), l=linear()),
    features("map as a function, read twice", None, lambda m, x: x + F.linear(F.linear(x, m.w), m.w),
             w=torch.randn(C, C)),
    features("map as a function with a bias that is computed", None,
             lambda m, x: x + F.linear(F.gelu(x), m.w, m.b.tanh()), w=torch.randn(C, C), b=torch.randn(C)),
    features("weight tied inside", None, lambda m, x: x + m.l2(F.gelu(m.l1(x))), **shared_weight()),
    # a zero in front of these would never get a gradient
    features("relu behind the map", None, lambda m, x: x + F.relu(m.l(F.gelu(x))), l=linear()),
    features("relu6 behind the map", None, lambda m, x: x + m.r(m.l(F.gelu(x))), l=linear(), r=nn.ReLU6()),
    features("square behind the map", None, lambda m, x: x + m.l(F.gelu(x)).square(), l=linear()),
]  # fmt: skip
