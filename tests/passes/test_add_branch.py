"""add-branch: every kind beside every operator, against hooks that add the branch by hand, and where it declines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.blocks.block import Block
from graphgrow.graph import Graph
from tests.passes.claims import (
    assert_alive,
    assert_equal,
    assert_exact,
    assert_exports,
    assert_narrow,
    assert_reloads,
    gradients,
    grown,
)
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def maps(dims: int, norm: bool = True, inputs: int = 4, outputs: int = 6, **options: Any) -> nn.Module:
    """A stem, the convolution `site`, a norm (or none), an activation in place, a head."""
    options = {"kernel_size": 3, "padding": 1} | options
    return Forward(
        lambda m, x: m.head(m.act(m.norm(m.site(m.first(m.stem(x)))))),
        stem=CONVS[dims](2, inputs, 1), first=nn.Tanh(), site=CONVS[dims](inputs, outputs, **options),
        norm=NORMS[dims](outputs) if norm else nn.Identity(), act=nn.ReLU(inplace=True),
        head=CONVS[dims](outputs, 3, 1),
    )  # fmt: skip


def features() -> nn.Module:
    return Forward(
        lambda m, x: m.head(m.norm(m.act(m.site(m.stem(x))))), stem=nn.Linear(3, 4), site=nn.Linear(4, 10),
        act=nn.SiLU(), norm=nn.LayerNorm(10), head=nn.Linear(10, 2),
    )  # fmt: skip


def graph_of(model: nn.Module, *shape: int) -> Graph:
    return gg.trace(model.double(), torch.randn(shape, dtype=torch.float64))


def assert_is_a_branch(model: nn.Module, child: Graph, x: torch.Tensor) -> None:
    """With every new weight moved, the operator puts out y + branch(x), the branch run by hand from its parts."""
    module = child.module.eval()
    for name, parameter in module.named_parameters():
        if "site_add_branch" in name:
            nn.init.normal_(parameter.data, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    parts = [part for name, part in module.named_modules() if name.startswith("site_add_branch.")]
    twin = copy.deepcopy(model).eval()
    twin.get_submodule("site").register_forward_hook(lambda _, args, out: out + nn.Sequential(*parts)(args[0].clone()))
    assert_equal(twin(x), module(x), 1e-12, "moved")


GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "outputs": 4},
    "even": {"kernel_size": 4, "stride": 3, "padding": 2},
    "valid": {"kernel_size": 2, "padding": "valid", "bias": False},
    "same": {"kernel_size": 5, "padding": "same", "dilation": 2},
    "unpadded": {"stride": 2, "padding": 0},
    "reflect": {"padding_mode": "reflect"},
}


BESIDE = [
    *((dims, kind, geometry) for dims in (1, 2) for kind in ("conv", "depthwise", "pool") for geometry in GEOMETRIES),
    *((3, kind, geometry) for kind, geometry in (("conv", "plain"), ("pool", "unpadded"), ("depthwise", "valid"))),
]


@pytest.mark.parametrize(("dims", "kind", "geometry"), BESIDE)
def test_beside_a_convolution(dims: int, kind: str, geometry: str) -> None:
    model = maps(dims, **GEOMETRIES[geometry])
    size = (7, 6, 5)[:dims]
    graph = graph_of(model, 2, 2, *size)
    text = f"add-branch(site, kind={kind})"
    options = GEOMETRIES[geometry]
    if kind == "pool" and (isinstance(options.get("padding"), str) or "dilation" in options):
        with pytest.raises(gg.Declined, match="an average has no dilation, and its padding is a number"):
            gg.apply(graph, text)
        return
    child = grown(graph, text)
    assert_exact(graph, child, sizes=[(2, *size), (2, *(9, 5, 6)[:dims])], batches=(1, 3), scales=(0.0, 1e4, -1e18))
    assert_alive(graph, child)
    assert_is_a_branch(model, child, torch.randn(3, 2, *size, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["mlp", "low-rank"])
@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 2, 5, 3)])
def test_beside_a_linear_map(kind: str, shape: tuple[int, ...]) -> None:
    model = features()
    graph = graph_of(model, *shape)
    child = grown(graph, f"add-branch(site, kind={kind})")
    assert_exact(graph, child, sizes=[shape[1:]])
    assert assert_alive(graph, child) == {"site_add_branch.first.weight", "site_add_branch.last.weight"}
    assert_is_a_branch(model, child, torch.randn(shape, dtype=torch.float64))


def test_the_branch_is_like_what_stands_around_it() -> None:
    """The nearest norm and activation, the operator's own geometry, and as many channels as are asked for."""
    graph = graph_of(maps(2, stride=2, padding_mode="reflect"), 2, 2, 8, 6)
    parts = dict(gg.apply(graph, "add-branch(site, kind=conv, hidden=7)").module.named_modules())
    first: Any = parts["site_add_branch.first"]
    assert (first.in_channels, first.out_channels, first.stride, first.padding_mode) == (4, 7, (2, 2), "reflect")
    assert first.bias is None, "a batch norm would take it out again"
    assert isinstance(parts["site_add_branch.norm"], nn.BatchNorm2d)
    assert isinstance(parts["site_add_branch.activation"], nn.Tanh)
    deep = dict(gg.apply(graph, "add-branch(site, kind=depthwise)").module.named_modules())["site_add_branch.first"]
    assert (deep.groups, deep.out_channels) == (4, 4)
    assert gg.apply(graph, "add-branch(site)").text() == gg.apply(graph, "add-branch(site, kind=conv)").text()
    rank = gg.apply(graph_of(features(), 2, 3), "add-branch(site, kind=low-rank)")
    assert rank.module.get_parameter("site_add_branch.first.weight").shape == (1, 4)  # an eighth of ten outputs
    wide = gg.apply(graph_of(features(), 2, 3), "add-branch(site, hidden=5)")
    assert wide.module.get_parameter("site_add_branch.first.weight").shape == (5, 4)


def test_without_a_norm_nearby_there_is_none() -> None:
    graph = graph_of(maps(2, norm=False), 2, 2, 8, 6)
    child = grown(graph, "add-branch(site, kind=conv)")
    assert assert_alive(graph, child) == {
        f"site_add_branch.{name}" for name in ("first.weight", "first.bias", "last.weight")
    }
    assert_exact(graph, child)


def test_identity_is_a_gate() -> None:
    model = maps(2, outputs=4)
    graph = graph_of(model, 2, 2, 5, 6)
    child = grown(graph, "add-branch(site, kind=identity)")
    assert_exact(graph, child, sizes=[(2, 5, 6), (2, 9, 1)])
    assert assert_alive(graph, child) == {"site_add_branch.gate.gate"}
    assert_is_a_branch(model, child, torch.randn(3, 2, 5, 6, dtype=torch.float64))


def test_identity_wants_shapes_that_agree_for_every_input() -> None:
    cases = [
        (maps(2), (5, 6), r"the shapes \(2, 4, 5, 6\) and \(2, 6, 5, 6\) differ"),
        (maps(2, outputs=4, norm=False, stride=2), (1, 1), r"with stride \(2, 2\) the shapes differ for larger inputs"),
    ]
    for model, size, words in cases:
        with pytest.raises(gg.Declined, match=words):
            gg.apply(graph_of(model, 2, 2, *size), "add-branch(site, kind=identity)")


def test_one_position_has_no_batch_norm() -> None:
    """Beside the convolutions of a squeeze-and-excitation gate, a batch of one would be refused in train mode."""
    gate = Forward(lambda m, x: m.bn(m.site(x)) * torch.sigmoid(m.wide(torch.relu(m.squeeze(x.mean((2, 3), True))))),
                   site=nn.Conv2d(4, 4, 3, padding=1), bn=nn.BatchNorm2d(4), squeeze=nn.Conv2d(4, 3, 1),
                   wide=nn.Conv2d(3, 4, 1))  # fmt: skip
    graph = graph_of(gate, 2, 4, 5, 6)
    for site in ("squeeze", "wide"):
        assert_exact(graph, grown(graph, f"add-branch({site}, kind=conv)"))


class Reused(nn.Module):
    """The same convolution twice; its second input is overwritten in place behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv(x)
        return self.head(self.conv(first).tanh() + self.act(first))


def test_only_the_named_call_has_a_branch() -> None:
    model = Reused()
    graph = graph_of(model, 2, 3, 5, 4)
    child = grown(graph, "add-branch(conv@2, kind=identity)")
    assert_exact(graph, child)
    child.module.get_parameter("conv_2_add_branch.gate.gate").data.fill_(0.5)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    first = model.conv(x)
    expected = model.head((model.conv(first) + 0.5 * first).tanh() + first.relu())
    assert_equal(expected, child.module(x), 1e-12, "opened")


def test_what_the_operator_reads_is_kept_for_the_gradient() -> None:
    """A frozen convolution does not need its input any more, so that it may be overwritten; the branch does."""
    model = Reused()
    model.conv.requires_grad_(False)
    graph = graph_of(model, 2, 3, 5, 4)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    assert gradients(model, (x,)).keys() == {"head.weight", "head.bias"}
    for kind in ("conv", "identity"):
        child = gg.apply(graph, f"add-branch(conv@2, kind={kind})")
        assert len(gradients(child.module, (x,))) > 2


REFUSED = [
    ("add-branch(up, kind=conv)", gg.Declined, "`up` is a transposed convolution, beside which no kind of branch"),
    ("add-branch(act)", gg.Declined, "`act` is no convolution or linear map of torch.nn"),
    ("add-branch(:relu)", gg.Declined, "`:relu` is no convolution or linear map of torch.nn"),
    ("add-branch(conv, kind=mlp)", gg.Declined, "kind=mlp does not fit a Conv2d"),
    ("add-branch(head, kind=pool)", gg.Declined, "kind=pool does not fit a Linear"),
    ("add-branch(wide, kind=pool)", gg.Declined, "an average of (1, 1) cannot be padded by (1, 1)"),
    ("add-branch(conv, kind=attention)", gg.MutationError, "kind=attention: there are auto, conv, depthwise"),
    ("add-branch(conv, hidden=-1)", gg.MutationError, "hidden=-1: a number of channels or 0 is wanted"),
    ("add-branch(conv, kind=pool, hidden=3)", gg.MutationError, "hidden=3: a branch of kind=pool has none; leave"),
    ("add-branch(cov)", gg.MutationError, "there is no site `cov`; did you mean 'conv'"),
]  # fmt: skip


def test_no_average_over_volumes_that_would_refuse_small_ones() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3, 2))
    graph = gg.trace(model, torch.randn(2, 2, 4, 4, 4))
    with pytest.raises(gg.Declined, match="refuses inputs smaller than its window"):
        gg.apply(graph, "add-branch(1, kind=pool)")


@pytest.fixture(scope="module")
def mixed() -> Graph:
    model = Forward(
        lambda m, x: m.head(m.act(m.wide(m.up(m.conv(x)).relu())).mean((2, 3))), conv=nn.Conv2d(2, 4, 3),
        up=nn.ConvTranspose2d(4, 4, 2, stride=2), wide=nn.Conv2d(4, 4, 1, padding=1), act=nn.GELU(),
        head=nn.Linear(4, 3),
    )  # fmt: skip
    return gg.trace(model, torch.randn(2, 2, 6, 5))


@pytest.mark.parametrize(("text", "error", "words"), REFUSED)
def test_refusals(mixed: Graph, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        gg.apply(mixed, text)
    assert words in str(caught.value)


def test_every_operator_is_listed_or_refused(mixed: Graph) -> None:
    mutations = mixed.mutations("add-branch")
    assert [str(mutation) for mutation in mutations] == [
        "add-branch(conv, kind=conv)",
        "add-branch(wide, kind=conv)",
        "add-branch(head, kind=mlp)",
    ]
    assert [refusal.site for refusal in mutations.refusals] == ["up"]
    unbatched = gg.trace(nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()), torch.randn(2, 5, 4))
    assert "without a batch axis" in str(unbatched.mutations("add-branch").refusals[0])


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_groups_grow_behind_it_as_before(kind: str) -> None:
    graph = graph_of(maps(2, groups=2), 2, 2, 6, 5) if kind == "conv" else graph_of(features(), 2, 5, 3)
    child = gg.apply(graph, f"add-branch(site, kind={kind})")
    names = {group.name for group in child.groups if group.frozen is None}
    assert names >= {group.name for group in graph.groups if group.frozen is None} | {"site_add_branch.first"}
    for mutation in [*child.mutations("widen"), *child.mutations("split")]:
        assert_preserved(child, gg.apply(child, mutation), batch_sizes=(None, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    assert_narrow(features, torch.randn(2, 5, 3), "add-branch(site, kind=mlp)", dtype)
    assert_narrow(lambda: maps(2), torch.randn(2, 2, 6, 5), "add-branch(site, kind=conv)", dtype)


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_verify_sees_a_branch_that_is_not_closed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gg.trace(*((maps(2), torch.randn(2, 2, 6, 5)) if kind == "conv" else (features(), torch.randn(2, 5, 3))))
    text = f"add-branch(site, kind={kind})"
    assert gg.verify(graph, gg.apply(graph, text)).preserved is True
    start = Block.start

    def ajar(block: Block, generator: torch.Generator) -> None:
        start(block, generator)
        block.get_parameter("last.weight").data.fill_(1e-6)

    monkeypatch.setattr(Block, "start", ajar)
    assert gg.verify(graph, gg.apply(graph, text)).preserved is False


def test_the_optimizer_trains_the_branch() -> None:
    graph = graph_of(features(), 2, 5, 3)
    optimizer = torch.optim.AdamW(graph.module.parameters(), lr=0.1)
    gradients(graph.module, graph.inputs.sample()[0])
    optimizer.step()
    kept = {name: optimizer.state[p]["exp_avg"].clone() for name, p in graph.module.named_parameters()}
    child = gg.apply(graph, "add-branch(site)", optimizer=optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in child.module.parameters()}
    for name, parameter in child.module.named_parameters():
        state = optimizer.state.get(parameter, {})
        assert torch.equal(state["exp_avg"], kept[name]) if name in kept else not state
    gradients(child.module, child.inputs.sample()[0])
    optimizer.step()
    assert bool(child.module.get_parameter("site_add_branch.last.weight").any())


def test_onnx(tmp_path: Path) -> None:
    graph = gg.trace(maps(2, stride=2), torch.randn(2, 2, 7, 6))
    child = gg.apply(graph, [f"add-branch(site, kind={kind})" for kind in ("conv", "depthwise", "pool")])
    for name, parameter in child.module.named_parameters():
        if name.endswith("last.weight"):
            nn.init.normal_(parameter.data, std=0.3)
    assert_exports(child, tmp_path)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:vit")
    assert_reloads(gg.apply(graph, list(graph.mutations("add-branch"))[:4:3]), tmp_path)


def test_complex_numbers_have_no_branch() -> None:
    layers = {"a": nn.Linear(3, 4, dtype=torch.cfloat), "b": nn.Linear(4, 2, dtype=torch.cfloat)}
    graph = gg.trace(Forward(lambda m, x: m.b(m.a(x.cfloat())).abs(), **layers), torch.randn(2, 3))
    assert not list(graph.mutations("add-branch"))
    with pytest.raises(gg.Declined, match="`b` maps complex numbers, which the blocks do not"):
        gg.apply(graph, "add-branch(b)")
