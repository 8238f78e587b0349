"""add-skip: between shapes of all kinds, against torch hooks that add the same by hand, and where it declines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.blocks.block import Block
from graphgrow.graph import Graph
from graphgrow.passes import add_skip
from graphgrow.rewrite.connections import connection
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
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
FUNCTIONAL: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Maps(nn.Module):
    """act1 at full resolution, act2 and act3 at half of it, act4 at full resolution; in place where asked."""

    def __init__(self, dims: int = 2, inplace: bool = False) -> None:
        super().__init__()
        conv = CONVS[dims]
        self.stem, self.act1 = conv(2, 4, 3, padding=1), nn.ReLU(inplace)
        self.down, self.norm, self.act2 = conv(4, 6, 3, stride=2, padding=1), NORMS[dims](6), nn.ReLU(inplace)
        self.mid, self.act3 = conv(6, 6, 3, padding=1), nn.ReLU(inplace)
        self.up, self.act4 = TRANSPOSED[dims](6, 4, 2, stride=2), nn.ReLU(inplace)
        self.head = conv(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act2(self.norm(self.down(self.act1(self.stem(x)))))
        return self.head(self.act4(self.up(self.act3(self.mid(x)))))


def tokens() -> nn.Module:
    """Features of width 4, 4 and 6."""
    return Forward(
        lambda m, x: m.head(m.act3(m.c(m.act2(m.b(m.act1(m.a(x))))))), a=nn.Linear(3, 4), act1=nn.Tanh(),
        b=nn.Linear(4, 4), act2=nn.GELU(), c=nn.Linear(4, 6), act3=nn.SiLU(), head=nn.Linear(6, 2),
    )  # fmt: skip


def graph_of(model: nn.Module, *shape: int) -> Graph:
    return gg.trace(model.double(), torch.randn(shape, dtype=torch.float64))


def opened(graph: Graph) -> Graph:
    """The connection with weights that are not zero, in place."""
    for name, parameter in graph.module.named_parameters():
        if "add_skip" in name:
            torch.nn.init.normal_(parameter.data, std=0.5, generator=torch.Generator().manual_seed(1))
    return graph


def by_hand(model: nn.Module, source: str, target: str, connect: Callable[[Any, Any], Any]) -> nn.Module:
    """The model itself, with hooks that add to the target's output what is made of the source's."""
    twin = copy.deepcopy(model)
    kept: dict[str, torch.Tensor] = {}
    twin.get_submodule(source).register_forward_hook(lambda _, __, out: kept.update(x=out.clone()))
    twin.get_submodule(target).register_forward_hook(lambda _, __, out: out + connect(kept["x"], out))
    return twin


# source, target, what is made of the source with the connection's one parameter
GATED = ("act2", "act3", lambda w, x, y: w * x)
WIDER = ("act1", "head", lambda w, x, y: FUNCTIONAL[w.dim() - 2](x, w))
POOLED = ("act1", "act3", lambda w, x, y: FUNCTIONAL[w.dim() - 2](POOLS[w.dim() - 2](x, 2), w))
RISING = ("act3", "act4", lambda w, x, y: FUNCTIONAL[w.dim() - 2](F.interpolate(x, size=y.shape[2:]), w))
ACROSS = ("act1", "act4", lambda w, x, y: w * x)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("case", [GATED, WIDER, POOLED, RISING, ACROSS], ids=["gate", "width", "pool", "rise", "full"])
def test_maps(dims: int, case: tuple[str, str, Callable[..., Any]]) -> None:
    source, target, connect = case
    model = Maps(dims)
    graph = graph_of(model, 2, 2, 8, *[6, 4][: dims - 1])
    child = grown(graph, f"add-skip({source}, target={target})")
    sizes = [(2, 8, *[6, 4][: dims - 1])]
    sizes += [(2, 6, 10, 2)[: dims + 1]]
    sizes += [(2, 7, 5, 9)[: dims + 1], (2, 3, 3, 2)[: dims + 1]] if case not in (ACROSS, WIDER) else []  # fits no more
    assert_exact(graph, child, sizes=sizes, batches=(1, 3))
    (name,) = assert_alive(graph, child)
    parameter = opened(child).module.get_parameter(name)
    x = torch.randn(3, 2, 8, *[6, 4][: dims - 1], dtype=torch.float64)
    twin = by_hand(model, source, target, lambda a, b: connect(parameter, a, b)).eval()
    assert_equal(twin(x), child.module.eval()(x), 1e-12, "opened")


def test_a_resolution_that_falls_by_no_whole_number_is_interpolated() -> None:
    model = Maps()
    graph = graph_of(model, 2, 2, 7, 5)  # act1 has 7 x 5, act3 has 4 x 3
    child = grown(graph, "add-skip(act1, target=act3)")
    assert_exact(graph, child, sizes=[(2, 7, 5), (2, 8, 8), (2, 3, 16)])
    weight = opened(child).module.get_parameter("act3_add_skip.projection.weight")
    x = torch.randn(2, 2, 7, 5, dtype=torch.float64)
    twin = by_hand(model, "act1", "act3", lambda a, b: F.conv2d(F.interpolate(a, size=(4, 3)), weight)).eval()
    assert_equal(twin(x), child.module.eval()(x), 1e-12, "opened")


def test_a_target_without_positions_left_stays_so_at_other_resolutions() -> None:
    """Pooled by a fixed window, a larger source would be broadcast over the pooled target."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    graph = graph_of(model, 2, 2, 4, 4)
    assert_exact(graph, grown(graph, "add-skip(1, target=4)"), sizes=[(2, 4, 4), (2, 9, 5)])


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 3, 2, 3)])
def test_features(shape: tuple[int, ...]) -> None:
    model = tokens()
    graph = graph_of(model, *shape)
    gated, wider = (grown(graph, f"add-skip(act1, target={target})") for target in ("act2", "act3"))
    assert assert_alive(graph, gated) == {"act2_add_skip.gate.gate"}
    assert assert_alive(graph, wider) == {"act3_add_skip.projection.weight"}
    for child in (gated, wider):
        sizes = [shape[1:], *([(9, 3), (1, 3)] if len(shape) == 3 else [])]
        assert_exact(graph, child, sizes=sizes)
    weight = opened(wider).module.get_parameter("act3_add_skip.projection.weight")
    x = torch.randn(shape, dtype=torch.float64)
    twin = by_hand(model, "act1", "act3", lambda a, b: a @ weight.T)
    assert_equal(twin(x), wider.module(x), 1e-12, "opened")


BACKWARDS = {("mid", "mid"), ("act3", "mid")}


@pytest.mark.parametrize(
    ("source", "target"),
    [(a, b) for a in ("stem", "norm", "mid", "act1", "act3") for b in ("mid", "up") if (a, b) not in BACKWARDS],
)
def test_in_place_operators_around_source_and_target(source: str, target: str) -> None:
    """A value that is overwritten is read as it was before; gradients are those of the model without in-place."""
    plain, model = Maps().double(), Maps(inplace=True).double()
    model.load_state_dict(plain.state_dict())
    graph = graph_of(model, 2, 2, 8, 6)
    child = grown(graph, f"add-skip({source}, target={target})")
    assert_exact(graph, child, batches=(2,), scales=(1.0,))
    simple = gg.apply(gg.trace(plain, torch.randn(2, 2, 8, 6).double()), f"add-skip({source}, target={target})")
    x = torch.randn(2, 2, 8, 6, dtype=torch.float64)
    mine, theirs = (opened(side).module.train() for side in (child, simple))
    assert_equal(theirs(x), mine(x), 1e-12, "opened")
    expected, found = gradients(theirs, (x,)), gradients(mine, (x,))
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert_equal(gradient, found[name], 1e-10, name)


@pytest.mark.parametrize("between", [nn.Identity(), nn.Dropout(0.5), nn.Flatten(1)], ids=["same", "dropout", "flat"])
def test_what_is_overwritten_through_another_module(between: nn.Module) -> None:
    """Modules that hand on their input, or a view of it: what is written behind them is written into the source."""
    model = Forward(
        lambda m, x: m.c(torch.tanh(m.b(m.act(m.between(m.a(x)))))), a=nn.Linear(3, 4), between=between,
        act=nn.ReLU(inplace=True), b=nn.Linear(4, 4), c=nn.Linear(4, 2),
    )  # fmt: skip
    graph = graph_of(model.eval(), 2, 3)
    child = gg.apply(graph, "add-skip(a, target=:tanh)")
    gate = opened(child).module.get_parameter("tanh_add_skip.gate.gate")
    x = torch.randn(5, 3, dtype=torch.float64)
    before = model.a(x)
    assert_equal(model.c(torch.tanh(model.b(before.relu())) + gate * before), child.module(x), 1e-12, "opened")
    gradients(child.module, (x,))


def test_two_connections_into_one_target_add_up() -> None:
    model = tokens()
    graph = graph_of(model, 2, 5, 3)
    child = gg.apply(graph, ["add-skip(act1, target=act3)", "add-skip(act2, target=act3)"])
    assert_exact(graph, child)
    first, second = (p for name, p in opened(child).module.named_parameters() if "add_skip" in name)
    inner = by_hand(model, "act1", "act3", lambda a, b: a @ first.T)
    twin = by_hand(inner, "act2", "act3", lambda a, b: a @ second.T)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    assert_equal(twin(x), child.module(x), 1e-12, "opened")


@pytest.mark.parametrize(("source", "target"), [("act2", "act3"), ("act1", "act3"), ("act3", "act4"), ("act1", "head")])
def test_groups_grow_behind_it_as_before(source: str, target: str) -> None:
    graph = graph_of(Maps(), 2, 2, 8, 6)
    child = opened(gg.apply(graph, f"add-skip({source}, target={target})"))
    mutations = [*child.mutations("widen"), *child.mutations("split")]
    assert len(mutations) >= 2 * (len(graph.mutations("widen")) - 1)  # a gate makes one group of two
    for mutation in mutations:
        assert_preserved(child, gg.apply(child, mutation), batch_sizes=(None, 3))


# -- refusals ---------------------------------------------------------------------------------------------------


def test_the_list_is_as_long_as_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*pair: Any) -> Any:
        asked.append(pair)
        return connection(*pair)

    monkeypatch.setattr(add_skip, "connection", counted)
    for depth in (4, 8, 16):
        layers = [layer for _ in range(depth) for layer in (nn.Linear(4, 4), nn.ReLU())]
        graph = gg.trace(nn.Sequential(*layers, nn.Linear(4, 2)), torch.randn(2, 4))
        asked.clear()
        found = [str(mutation) for mutation in graph.mutations("add-skip")]
        assert len(found) == 2 * depth - 3  # two for each activation behind the second
        assert len(asked) <= 8 * depth
        assert found[:3] == ["add-skip(1, target=3)", "add-skip(3, target=5)", "add-skip(1, target=5)"]


def test_where_nothing_fits_the_search_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def declined(*pair: Any) -> Any:
        asked.append(pair)
        raise gg.Declined("nothing fits")

    monkeypatch.setattr(add_skip, "connection", declined)
    layers = [layer for _ in range(20) for layer in (nn.Linear(4, 4), nn.ReLU())]
    mutations = gg.trace(nn.Sequential(*layers, nn.Linear(4, 2)), torch.randn(2, 4)).mutations("add-skip")
    assert len(mutations) == 0
    assert {refusal.reason for refusal in mutations.refusals[1:]} == {"nothing fits"}
    assert len(asked) == sum(min(number, 8) for number in range(20))


def test_a_value_that_the_target_reads_itself_is_not_listed() -> None:
    layers = (nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Sigmoid(), nn.Linear(4, 2))
    graph = gg.trace(nn.Sequential(*layers), torch.randn(2, 3))
    assert [str(mutation) for mutation in graph.mutations("add-skip")] == [
        "add-skip(1, target=3)",
        "add-skip(1, target=4)",
    ]


def test_a_connection_that_was_made_is_not_listed_again() -> None:
    graph = gg.trace("graphgrow:resnet")
    first = str(graph.mutations("add-skip")[0])
    listed = [str(mutation) for mutation in gg.apply(graph, first).mutations("add-skip")]
    assert listed
    assert first not in listed


def test_what_is_listed_applies_and_the_rest_says_why() -> None:
    graph = gg.trace("graphgrow:unet")
    mutations = graph.mutations("add-skip")
    assert len(mutations) > 10
    for mutation in list(mutations)[::5]:
        assert_preserved(graph, gg.apply(graph, mutation))
    assert next(str(refusal) for refusal in mutations.refusals).endswith("nothing stands in front of it")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", ["act2", "act3"])
def test_low_precision(dtype: torch.dtype, target: str) -> None:
    assert_narrow(tokens, torch.randn(2, 5, 3), f"add-skip(act1, target={target})", dtype)


@pytest.mark.parametrize(("source", "target"), [("act2", "act3"), ("act1", "act3")])
def test_verify_sees_a_connection_that_is_not_closed(source: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gg.trace(Maps(), torch.randn(2, 2, 8, 6))
    text = f"add-skip({source}, target={target})"
    assert gg.verify(graph, gg.apply(graph, text)).preserved is True
    monkeypatch.setattr(Block, "start", lambda block, _: [p.data.fill_(1e-6) for p in block.parameters()])
    assert gg.verify(graph, gg.apply(graph, text)).preserved is False


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_optimizer_trains_the_connection(kind: Any) -> None:
    graph = graph_of(tokens(), 2, 5, 3)
    optimizer = kind(graph.module.parameters(), lr=0.1)
    gradients(graph.module, graph.inputs.sample()[0])
    optimizer.step()
    child = gg.apply(graph, "add-skip(act1, target=act3)", optimizer=optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in child.module.parameters()}
    gradients(child.module, child.inputs.sample()[0])
    optimizer.step()
    assert bool(child.module.get_parameter("act3_add_skip.projection.weight").any())


def test_onnx(tmp_path: Path) -> None:
    graph = gg.trace(Maps(), torch.randn(2, 2, 7, 6))
    texts = ["add-skip(act2, target=act3)", "add-skip(act1, target=mid)", "add-skip(act3, target=act4)"]
    assert_exports(opened(gg.apply(graph, texts)), tmp_path)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:resnet")
    assert_reloads(gg.apply(graph, list(graph.mutations("add-skip"))[:9:8]), tmp_path)


def test_a_view_of_what_is_overwritten_is_read_before() -> None:
    """The write goes to the tensor that the source is a view of."""

    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            t = y.view(-1, 4).sum(-1, keepdim=True)
            result: torch.Tensor = self.last(torch.tanh(self.b(torch.relu_(y))) + t)
            return result

    torch.manual_seed(0)
    model, x = View().double(), torch.randn(5, 3, dtype=torch.float64)
    grown_graph = gg.apply(gg.trace(model, x), "add-skip(:view, target=:tanh)")
    with torch.no_grad():
        grown_graph.module.get_parameter("tanh_add_skip.gate.gate").fill_(1.0)
        y = model.a(x)
        wanted = model.last(torch.tanh(model.b(y.relu())) + y + y.sum(-1, keepdim=True))
    found = grown_graph.module(x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    found.sum().backward()


class Chosen(nn.Module):
    """Rows that two masks choose, as many by each on some inputs alone; and two maps over the rows of one mask."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, low = torch.where(x[:, 0] > 0)[0], torch.where(x[:, 1] > 0)[0]
        one, other = torch.tanh(self.first(x[high])), torch.tanh(self.second(x[low]))
        one = torch.sigmoid(self.third(one))
        return self.last(x.index_add(0, high, one).index_add(0, low, other))


def test_rows_that_other_values_choose_are_not_joined() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[1.0, -1, 2, 0.5], [-1.0, 1, 1, 0.3]])  # as many rows by either mask
    graph = gg.trace(Chosen(), x)
    with pytest.raises(gg.Declined, match="as long as values decide"):
        gg.apply(graph, "add-skip(first, target=second)")
    listed = list(graph.mutations("add-skip"))
    assert listed
    others = torch.tensor([[1.0, -1, 2, 0.5], [2.0, 1, 1, 0.3], [0.5, -2.0, 1, 1]])
    for mutation in listed:
        grown = gg.apply(graph, mutation)
        torch.testing.assert_close(grown.module(others), graph.module(others))
