"""Closing a block is a proof. Each block here is copied behind itself, and must then compute what it did alone.

Where the proof should not hold, the copy comes behind a gate or not at all; a wrong claim would show in the outputs,
which are compared to the bit, on weights and statistics that are not trivial.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.rewrite.closing import close_branches
from graphgrow.rewrite.region import Region
from graphgrow.store.names import import_torchvision
from tests.passes.claims import assert_alive, assert_exact, grown
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


import_torchvision()
from torchvision.ops import StochasticDepth  # noqa: E402  # needs the line above beside a torch of another build

CLOSED = [
    features("residual", "l2", lambda m, x: x + m.l2(F.gelu(m.l1(x))), l1=linear(), l2=linear()),
    features("branch first", "l2", lambda m, x: m.l2(F.gelu(m.l1(x))) + x, l1=linear(), l2=linear(False)),
    features("pre-norm", "l2", lambda m, x: x + m.l2(F.gelu(m.l1(m.n(x)))), n=norm(), l1=linear(), l2=linear()),
    features("two branches", "a c", two_branches, n1=norm(), n2=norm(), a=linear(), b=linear(), c=linear(), d=linear()),
    features("two in one sum", "l1 l2", twice_added, l1=linear(), l2=linear()),
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


@pytest.mark.parametrize("case", CLOSED, ids=str)
def test_a_residual_block_is_closed(case: Case) -> None:
    graph = case.graph()
    child = grown(graph, "deepen(block, kind=copy)")
    parameters = dict(child.module.named_parameters())
    assert case.closed is not None
    zero = {f"block_deepen.{path}{leaf}" for path in case.closed.split() for leaf in ("", ".weight", ".bias")}
    copied = {name for name in parameters if name.startswith("block_deepen.")}
    assert {name for name in copied if not parameters[name].any()} == zero & copied
    assert not any("gate" in name for name in parameters)
    for name in copied - zero:
        assert torch.equal(parameters[name], parameters[name.replace("block_deepen", "block")])
    assert_exact(graph, child)
    assert assert_alive(graph, child) == copied


def test_a_norm_that_scales_by_one_and_its_weight_is_closed_at_minus_one() -> None:
    """As at the ends of Gemma 2's branches."""
    norm = RootMeanSquareNorm(C, offset=1.0)
    nn.init.normal_(norm.get_parameter("weight"))
    graph = features("Gemma's norm", "", lambda m, x: x + m.n(m.l(F.gelu(x))), l=linear(), n=norm).graph()
    child = grown(graph, "deepen(block, kind=copy)")
    copied = {n: p for n, p in child.module.named_parameters() if n.startswith("block_deepen")}
    assert torch.equal(copied["block_deepen.n.weight"], torch.full((C,), -1.0, dtype=torch.float64))
    assert_exact(graph, child)
    assert assert_alive(graph, child) == copied.keys()
    assert [str(mutation) for mutation in child.mutations("drop-branch")]  # it is known to be closed


@pytest.mark.parametrize("case", GATED, ids=str)
def test_what_cannot_be_closed_is_gated(case: Case) -> None:
    graph = case.graph()
    child = grown(graph, "deepen(block, kind=copy)")
    parameters = dict(child.module.named_parameters())
    assert not parameters["block_deepen_gate.gate.gate"].any()
    for name, copied in parameters.items():
        if name.startswith("block_deepen."):
            assert torch.equal(copied, parameters[name.replace("block_deepen", "block")])
    assert_exact(graph, child)
    assert_alive(graph, child)


def proof(graph: Graph, path: str = "block") -> list[str] | None:
    """What `close_branches` finds for a module's region."""
    assert graph.analysis.facts
    region = Region.of(graph.module.graph, path)
    stream = region.inputs[0]
    return close_branches(graph.module, region.nodes, stream, region.result, region.result, path)


def test_a_sum_that_broadcasts_the_stream_is_not_the_stream() -> None:
    """What comes out has another shape, so that nobody would ask; the proof must not rest on that."""
    model = Forward(lambda m, x: m.block(m.first(x)), first=nn.Linear(3, C),
                    block=Forward(lambda m, x: x + m.l(m.wide), l=linear(), wide=torch.randn(2, 5, C)))  # fmt: skip
    assert proof(gg.trace(model, torch.randn(5, 3))) is None
    model.block._run = lambda m, x: x + m.l(m.wide[0])
    assert proof(gg.trace(model, torch.randn(5, 3))) == ["block.l"]


def test_a_sum_of_two_dtypes_is_not_the_stream() -> None:
    model = Forward(lambda m, x: m.block(m.first(x)), first=nn.Linear(3, C),
                    block=Forward(lambda m, x: x + m.l(x.double()), l=linear().double()))  # fmt: skip
    assert proof(gg.trace(model, torch.randn(5, 3))) is None


class BatchNormAct2d(nn.BatchNorm2d):
    """Like timm's: a batch norm that also activates, and one node of the graph."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__(C)
        self.act, self.drop = act, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.act(super().forward(x))
        return result


@pytest.mark.parametrize(("act", "closed"), [(nn.Identity(), ["block.n"]), (nn.Sigmoid(), None), (nn.ReLU(), None)])
def test_a_norm_that_also_activates(monkeypatch: pytest.MonkeyPatch, act: nn.Module, closed: list[str] | None) -> None:
    monkeypatch.setattr(BatchNormAct2d, "__module__", "timm.layers.norm_act")
    case = maps("norm and activation", None, lambda m, x: x + m.n(m.c(F.silu(x))), c=conv(), n=BatchNormAct2d(act))
    graph = case.graph()
    assert proof(graph) == closed
    assert_exact(graph, gg.apply(graph, "deepen(block, kind=copy)"))


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    """On the meta device the user's leaves have not been run, and their class is all that is known."""

    class Shifted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    case = features("subclass", None, lambda m, x: x + m.l(F.gelu(x)), l=Shifted(C, C))
    assert proof(case.graph()) is None
    with torch.device("meta"):
        model = Forward(lambda m, x: m.block(x), block=Forward(case.run, l=Shifted(C, C)))
        graph = gg.trace(model, torch.empty(5, C), leaves=[Shifted])
    assert proof(graph) is None


class TwoBlocks(nn.Module):
    """Two residual blocks; `how` says what the first one shares with the world."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(3, C), nn.Linear(C, 2)
        self.a, self.b = (Forward(lambda m, x: x + m.l2(F.gelu(m.l1(x))), l1=linear(), l2=linear()) for _ in "ab")
        if how == "tied weight":
            self.b.l2.weight = self.a.l2.weight
        if how == "tied bias":
            self.b.l1.bias = self.a.l2.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(self.a(self.first(x)))
        if self.how == "called elsewhere":
            x = self.a.l2(x)
        if self.how == "read elsewhere":
            x = x * self.a.l2.weight.sum()
        result: torch.Tensor = self.last(x)
        return result


@pytest.mark.parametrize("how", ["tied weight", "tied bias", "called elsewhere", "read elsewhere"])
def test_a_map_that_others_use_is_never_set_to_zero(how: str) -> None:
    graph = gg.trace(TwoBlocks(how).double(), torch.randn(4, 5, 3, dtype=torch.float64))
    child = grown(graph, "deepen(a, kind=copy)")
    assert "a_deepen_gate.gate.gate" in dict(child.module.named_parameters())
    assert_exact(graph, child)
    assert bool(child.module.get_parameter("a.l2.weight").any())


@pytest.mark.parametrize("which", ["gamma", "l1", "l2", "both"])
def test_a_branch_that_is_zero_already_gets_no_second_zero(which: str) -> None:
    """Zero times zero would never learn: a layer scale that starts at zero, a last map that does."""
    case = features("layer scale", None, lambda m, x: x + m.l2(F.gelu(m.l1(x))) * m.gamma, l1=linear(), l2=linear(),
                    gamma=torch.full((C,), 0.1))  # fmt: skip
    graph = case.graph()
    names = {"gamma": ["gamma"], "l1": ["l1.weight", "l1.bias"], "l2": ["l2.weight", "l2.bias"], "both": ["gamma"]}[
        which
    ]
    with torch.no_grad():
        for name in names:
            graph.module.get_parameter(f"block.{name}").zero_()
    child = grown(graph, "deepen(block, kind=copy)")
    zero = {n for n, p in child.module.named_parameters() if n.startswith("block_deepen.") and not p.any()}
    expected = names if which in ("gamma", "l2", "both") else [*names, "l2.weight", "l2.bias"]
    assert zero == {f"block_deepen.{name}" for name in expected}
    assert_exact(graph, child)
    if which != "l1":  # with l1 at zero its own gradient through l2 comes a step later than usual
        assert_alive(graph, child)


def test_the_structure_does_not_depend_on_the_weights() -> None:
    """A position table that is zero today is no reason to leave the gate out."""
    case = features("table", None, lambda m, x: x + m.l(F.gelu(x)) + m.b, l=linear(), b=torch.zeros(C))
    graph = case.graph()
    names = [name for name, _ in gg.apply(graph, "deepen(block, kind=copy)").module.named_parameters()]
    with torch.no_grad():
        graph.module.get_parameter("block.b").fill_(1.0)
    assert [name for name, _ in gg.apply(graph, "deepen(block, kind=copy)").module.named_parameters()] == names
    assert "block_deepen_gate.gate.gate" in names


def test_on_the_meta_device_the_same_is_closed() -> None:
    case = CLOSED[2]
    graph = case.graph()
    outline = graph.cost("deepen(block, kind=copy)")
    child = gg.apply(graph, "deepen(block, kind=copy)")
    assert outline.parameters == child.parameter_count - graph.parameter_count
