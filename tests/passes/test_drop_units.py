"""drop-units: what widen appended goes again; what anything depends on stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, assert_reloads, grown, stirred
from tests.preserved import assert_preserved, assert_same_bits
from tests.rewrite.small_models import EXPECTED, Expected, Forward

UNREAD = ("chunk", "norm-of-a-part")  # with a half that nothing reads at all
NORMED = ("layer-norm", "rms-norm", "tied-stream", "residual-norms", "norm-of-a-part")


def traced(expected: Expected, dtype: torch.dtype = torch.float64) -> Graph:
    torch.manual_seed(0)
    x = torch.randn(*expected.shape, dtype=dtype)
    return gg.trace(stirred(expected.build()).to(dtype), x)


# Growth multiplied what these put out, and nothing says by how much.
RESCALED = {"layer-norm-bare": "layer norm", "mean-of-two-parts": "mean", "two-parts-minus-their-mean": "mean",
            "spelled-norm": "mean"}  # fmt: skip


@pytest.mark.parametrize("expected", [e for e in EXPECTED if e.widen and str(e) not in RESCALED], ids=str)
def test_what_widen_appended_goes_again(expected: Expected) -> None:
    """Every group that widen is expected to offer: the same shapes and the same numbers as before."""
    graph = traced(expected)
    for name in expected.widen.split():
        child = gg.apply(graph, f"widen({name}, extra=3)", seed=2)
        size = graph.group(name).size
        text = f"drop-units({name}, units=[{size}, {size + 1}, {size + 2}])"
        unread = str(expected) in UNREAD and name == "first:1"
        assert (text in [str(mutation) for mutation in child.mutations("drop-units")]) is not unread
        back = grown(child, text)
        assert_preserved(child, back)
        assert gg.verify(child, back).preserved is True
        assert gg.verify(graph, back).preserved is True
        mine, theirs = dict(graph.module.named_parameters()), dict(back.module.named_parameters())
        assert list(mine) == list(theirs)
        for key, tensor in mine.items():
            near = any(label in str(expected) for label in NORMED)  # the scale of a norm goes there and back
            assert torch.allclose(theirs[key], tensor, rtol=1e-12 if near else 0, atol=0), key


@pytest.mark.parametrize(("label", "number"), RESCALED.items())
def test_units_behind_a_number_that_growth_rescaled_are_kept(label: str, number: str) -> None:
    graph = traced(next(expected for expected in EXPECTED if str(expected) == label))
    child = gg.apply(graph, "widen(first, extra=2)")
    assert not child.mutations("drop-units")
    with pytest.raises(gg.Declined, match=f"the {number} over the units was rescaled as a whole"):
        gg.apply(child, "drop-units(first, units=[4, 5])")


def test_some_of_the_units_and_those_in_the_middle() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double(), torch.randn(2, 3).double())
    with torch.no_grad():
        graph.module.get_parameter("2.weight")[:, [1, 4]] = 0.0
    assert [str(m) for m in graph.mutations("drop-units")] == ["drop-units(0, units=[1, 4])"]
    child = grown(graph, "drop-units(0, units=[4])")
    assert_exact(graph, child, tolerance=1e-15)
    assert torch.equal(child.module.get_parameter("0.weight"), graph.module.get_parameter("0.weight")[[0, 1, 2, 3, 5]])
    assert child.module.get_submodule("0").out_features == 5


def test_units_that_are_zero_are_dropped_whoever_reads_them() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double(), torch.randn(2, 3).double())
    with torch.no_grad():
        graph.module.get_parameter("0.weight")[2] = 0.0
        graph.module.get_parameter("0.bias")[2] = 0.0
    assert [str(m) for m in graph.mutations("drop-units")] == ["drop-units(0, units=[2])"]
    assert_exact(graph, grown(graph, "drop-units(0, units=[2])"), tolerance=1e-15)
    with torch.no_grad():
        graph.module.get_parameter("0.bias")[2] = 0.5
    with pytest.raises(gg.Declined, match="neither of them zero"):
        gg.apply(graph, "drop-units(0, units=[2])")


def test_units_of_a_stream_that_nothing_else_reads() -> None:
    """x + b(relu(a(x))): nothing reads units 2 and 3; one weight, however small, makes one of them stay."""
    model = Forward(lambda m, x: m.last(m.first(x) + m.b(m.a(m.first(x)).relu())), first=nn.Linear(3, 4),
                    a=nn.Linear(4, 5), b=nn.Linear(5, 4), last=nn.Linear(4, 2)).double()  # fmt: skip
    with torch.no_grad():
        model.get_submodule("last").weight[:, 2:] = 0.0
        model.get_submodule("a").weight[:, 2:] = 0.0
    graph = gg.trace(model, torch.randn(2, 3).double())
    assert [str(m) for m in graph.mutations("drop-units")] == ["drop-units(first, units=[2, 3])"]
    assert_exact(graph, grown(graph, "drop-units(first, units=[2, 3])"), tolerance=1e-15)
    with torch.no_grad():
        model.get_submodule("a").weight[0, 3] = 1e-30
    assert [str(m) for m in graph.mutations("drop-units")] == ["drop-units(first, units=[2])"]
    with pytest.raises(gg.Declined):
        gg.apply(graph, "drop-units(first, units=[3])")


def test_a_mean_that_has_moved_stays() -> None:
    graph = traced(next(e for e in EXPECTED if e.label == "residual-norms"))
    child = gg.apply(graph, "widen(first, extra=1)")
    with torch.no_grad():
        child.module.get_parameter("pos")[0, -1] += 1e-12
    assert not any(str(m).startswith("drop-units(first") for m in child.mutations("drop-units"))
    with pytest.raises(gg.Declined, match="at mean"):
        gg.apply(child, "drop-units(first, units=[4])")


class Stream(nn.Module):
    """A residual stream that its head reads past the last norm, so that only what a norm reads is at the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return torch.as_tensor(self.head(x + self.down(torch.tanh(self.up(self.norm(x))))))


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize(("norm", "modes"), [(nn.RMSNorm, {"eval", "train"}), (nn.LayerNorm, {"eval"})])
def test_modes_behind_dropout(norm: type[nn.Module], modes: set[str], always: bool) -> None:
    """Zeros stay zeros where elements are dropped one by one; units at the mean of the others leave it."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(m.last(m.norm(F.dropout(m.first(x), 0.5, training=always or m.training))))

    torch.manual_seed(0)
    model = Forward(run, first=nn.Linear(3, 6), norm=norm(6), last=nn.Linear(6, 2)).double()
    with torch.no_grad():
        for tensor in model.get_submodule("first").parameters():
            tensor[4:] = 0.0 if norm is nn.RMSNorm else tensor[:4].mean(0)
    graph = gg.trace(model, torch.randn(5, 3).double())
    found = [str(mutation) for mutation in graph.mutations("drop-units")]
    if always and norm is nn.LayerNorm:
        assert found == []
        with pytest.raises(gg.Declined, match="dropped one by one in eval mode too"):
            gg.apply(graph, "drop-units(first, units=[4, 5])")
        return
    assert found == ["drop-units(first, units=[4, 5])"]
    child = grown(graph, found[0])
    assert child.steps[-1].exact_in == modes
    verdict = gg.verify(graph, child)
    assert verdict.preserved is True, str(verdict)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_units_of_which_a_norm_sees_a_part_go_again(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    graph = gg.trace(Stream().to(dtype), torch.randn(4, 3).to(dtype))
    grown = gg.apply(graph, "widen(stem, extra=3)")
    back = gg.clean(grown)
    assert back.parameter_count == graph.parameter_count
    assert {n: p.shape for n, p in back.module.named_parameters()} == {
        n: p.shape for n, p in graph.module.named_parameters()
    }


def test_means_that_are_rounded_to_float32() -> None:
    """The unit holds the mean as nearly as float32 can: verified on the mean itself."""
    graph = gg.trace(MODELS["vit"].factory(depth=1).eval(), MODELS["vit"].example())
    child = gg.apply(graph, "widen(patch_embed, extra=5)")
    back = gg.apply(child, "drop-units(patch_embed, units=[32..36])")
    assert back.steps[-1].rounded
    verdict = gg.verify(child, back)
    assert verdict.preserved is True, str(verdict)
    assert back.text() == graph.text()


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("drop-units(0, units=[6])", gg.MutationError, "units 0 to 5"),
        ("drop-units(0, units=[0..5])", gg.MutationError, "not all"),
        ("drop-units(0, units=[1, 1])", gg.MutationError, "each once"),
        ("drop-units(0, units=[])", gg.MutationError, "not all"),
        ("drop-units(2, units=[0])", gg.Declined, "frozen: a model output"),
        ("drop-units(0, units=[0])", gg.Declined, "neither of them zero"),
    ],
)
def test_refusals(text: str, error: type[Exception], said: str) -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)), torch.randn(2, 3))
    with pytest.raises(error, match=said):
        gg.apply(graph, text)


def test_optimizer_state_comes_back() -> None:
    """The state of a widened network, without the new units' entries."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    graph = gg.trace(model, torch.randn(2, 3).double())
    optimizer = torch.optim.AdamW(graph.module.parameters(), lr=1e-3)
    graph.module(torch.randn(5, 3).double()).square().sum().backward()
    optimizer.step()
    before = {n: copy.deepcopy(optimizer.state[p]) for n, p in graph.module.named_parameters()}
    back = gg.apply(graph, ["widen(0, extra=3)", "drop-units(0, units=[4, 5, 6])"], optimizer=optimizer)
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [id(p) for p in back.module.parameters()]
    for name, parameter in back.module.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[parameter][key], before[name][key])


def test_without_data_the_structure_is_rebuilt() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3))
    bare = gg.apply(without_data(graph), ["widen(0, extra=2)", "drop-units(0, units=[1, 4])"])
    assert [tuple(p.shape) for p in bare.module.parameters()] == [(4, 3), (4,), (2, 4), (2,)]


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = gg.apply(gg.trace("graphgrow:resnet"), ["widen(stem, extra=4)", "drop-units(stem, units=[16..19])"])
    assert_reloads(graph, tmp_path)


class TiedHead(nn.Module):
    """Tokens, a map beside them, and a head of the table's own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(7, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        return F.linear(h + self.mix(h), self.embed.weight)


def test_units_that_a_tied_table_writes_with_zeros() -> None:
    """The map reads them afresh and writes them afresh: the table alone keeps them out, where it writes and reads."""
    graph = gg.trace(TiedHead().double(), torch.randint(0, 7, (2, 4)))
    child = gg.apply(graph, "widen(mix, extra=2)", seed=1)
    table, map_ = (child.module.get_parameter(f"{name}.weight") for name in ("embed", "mix"))
    assert not table[:, 3:].any()
    assert map_[3:].all()
    assert map_[:, 3:].all()
    (mutation,) = child.mutations("drop-units")
    assert str(mutation) == "drop-units(mix, units=[3, 4])"
    back = gg.apply(child, mutation)
    assert_same_bits(back.module, graph.module)
    assert gg.verify(child, back).preserved


class Slimmed(nn.Module):
    """Channels whose batch norm has neither scale nor shift: of one map, or of a stream that two maps write."""

    def __init__(self, act: nn.Module, second: bool) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(2, 6, 1), nn.Conv2d(2, 6, 1), nn.Conv2d(6, 2, 1)
        self.norm_a, self.norm_b, self.act, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6), act, second
        for norm, zeros in ((self.norm_a, [0, 2, 5]), (self.norm_b, [2, 3])):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            with torch.no_grad():
                norm.weight[zeros], norm.bias[zeros] = 0.0, 0.0
        nn.init.zeros_(self.norm_a.weight[4])  # not its shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm_a(self.a(x))
        y = y + self.norm_b(self.b(x)) if self.second else y
        result: torch.Tensor = self.last(self.act(y))
        return result


@pytest.mark.parametrize(("second", "units"), [(False, "[0, 2, 5]"), (True, "[2]")])
def test_channels_that_a_batch_norm_scales_to_zero_go(second: bool, units: str) -> None:
    torch.manual_seed(0)
    graph = gg.trace(Slimmed(nn.ReLU(), second).double(), torch.randn(3, 2, 4, 4).double())
    (mutation,) = graph.mutations("drop-units")
    assert str(mutation) == f"drop-units(a, units={units})"
    assert_preserved(graph, gg.apply(graph, mutation))
    assert gg.clean(graph).module.get_submodule("last").in_channels == 6 - units.count(",") - 1


def test_a_branch_that_a_batch_norm_closes_leaves_its_stream_written() -> None:
    model = Slimmed(nn.ReLU(), second=True)
    nn.init.zeros_(model.norm_a.weight)
    nn.init.zeros_(model.norm_a.bias)
    nn.init.ones_(model.norm_b.weight)
    offered = gg.trace(model, torch.randn(3, 2, 4, 4)).mutations("drop-units")
    assert not list(offered)
    assert "every unit is written and read" in {refusal.reason for refusal in offered.refusals}


def test_channels_that_are_not_zero_behind_their_activation_stay() -> None:
    graph = gg.trace(Slimmed(nn.Sigmoid(), False), torch.randn(3, 2, 4, 4))
    assert not list(graph.mutations("drop-units"))
    with pytest.raises(gg.Declined, match="neither of them zero"):
        gg.apply(graph, "drop-units(a, units=[0, 2, 5])")


def test_a_channel_shuffle_whose_half_comes_to_nothing_on_the_way_follows_its_channels() -> None:
    """Found by the campaign: a ZeroDivisionError."""

    def run(m: Any, x: torch.Tensor) -> Any:
        kept, changed = m.first(x).chunk(2, 1)
        y = torch.cat([kept, m.branch(changed)], 1)
        n, channels, height, width = y.shape
        y = y.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)
        return m.last(y.flatten(1))

    torch.manual_seed(0)
    layers = {"first": nn.Conv2d(2, 2, 3, padding=1), "branch": nn.Conv2d(1, 1, 1), "last": nn.Linear(18, 2)}
    graph = gg.trace(Forward(run, **layers).double(), torch.randn(3, 2, 3, 3).double())
    wider = gg.apply(graph, ["widen(first:0, extra=1)", "widen(first:0, extra=1)"])
    assert_preserved(wider, gg.apply(wider, "drop-units(first:0, units=[2])"))
