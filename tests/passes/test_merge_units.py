"""merge-units: what split duplicated is one again, to the bit; what has parted stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, grown, stirred
from tests.preserved import assert_preserved, assert_same_bits
from tests.rewrite.small_models import EXPECTED, Expected, Forward


def traced(expected: Expected) -> Graph:
    torch.manual_seed(0)
    return gg.trace(stirred(expected.build()).double(), torch.randn(*expected.shape).double())


def net(*middle: nn.Module, width: int = 4) -> Graph:
    model = nn.Sequential(nn.Linear(3, width), *middle, nn.Linear(width, 2)).double()
    return gg.trace(model, torch.randn(3, 3).double())


RESCALED = ("mean-of-two-parts", "direction")  # growth multiplied a number, and nothing says by how much
SUMMED = ("sum", "complex-sum")  # whose units need not be alike to be added up


@pytest.mark.parametrize("expected", [e for e in EXPECTED if e.split and str(e) not in RESCALED], ids=str)
@pytest.mark.parametrize("copies", [2, 3])
def test_what_split_duplicated_is_one_again(expected: Expected, copies: int) -> None:
    graph = traced(expected)
    for name in expected.split.split():
        child = gg.apply(graph, f"split({name}, copies={copies})", seed=2)
        texts = [str(mutation) for mutation in child.mutations("merge-units")]
        found = [text for text in texts if text.startswith(f"merge-units({name},")]
        if str(expected) in SUMMED:
            assert found == []
            found = ["merge-units(first, units=[4..7], into=[0..3])"]
            child = gg.apply(graph, "split(first)")
        (text,) = found
        back = grown(child, text)
        assert_preserved(child, back)
        assert gg.verify(child, back).preserved is True
        assert_same_bits(back.module, graph.module)


def test_a_few_units_with_three_copies() -> None:
    graph = net(nn.Tanh())
    child = gg.apply(graph, "split(0, units=[1, 3], copies=3)")
    (mutation,) = child.mutations("merge-units")
    assert str(mutation) == "merge-units(0, units=[4..7], into=[1, 3, 1, 3])"
    assert_same_bits(grown(child, str(mutation)).module, graph.module)
    some = grown(child, "merge-units(0, units=[6], into=[4])")  # a copy into a copy
    assert_exact(child, some, tolerance=1e-15, batches=(2, 3))
    assert some.group("0").size == 7


def test_copies_of_the_users_own() -> None:
    graph = net(nn.BatchNorm1d(4), nn.ReLU())
    with torch.no_grad():
        for name in ("0.weight", "0.bias"):
            graph.module.get_parameter(name)[2] = graph.module.get_parameter(name)[0]
    child = grown(graph, "merge-units(0, units=[2], into=[0])")
    whole = graph.module.get_parameter("3.weight")
    assert torch.equal(child.module.get_parameter("3.weight")[:, 0], whole[:, 0] + whole[:, 2])
    with torch.no_grad():
        graph.module.get_buffer("1.running_var")[2] *= 1 + 1e-15
    with pytest.raises(gg.Declined, match=r"differ in `1.running_var`"):
        gg.apply(graph, "merge-units(0, units=[2], into=[0])")


def test_dropout_between_copies_and_readers_is_exact_in_eval_alone() -> None:
    child = gg.apply(net(nn.Dropout(0.5)), "split(0, units=[0])")
    assert grown(child, "merge-units(0, units=[4], into=[0])").steps[-1].exact_in == {"eval"}


def test_a_norm_over_the_axis_admits_all_alike() -> None:
    child = gg.apply(net(nn.LayerNorm(4)), "split(0)")
    with pytest.raises(gg.Declined, match="splits of all units alike"):
        gg.apply(child, "merge-units(0, units=[4], into=[0])")
    assert_exact(child, grown(child, "merge-units(0, units=[4..7], into=[0..3])"), tolerance=1e-14)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("merge-units(0, units=[1], into=[4])", gg.MutationError, "units 0 to 3, not 4"),
        ("merge-units(0, units=[1, 2], into=[0])", gg.MutationError, "as many"),
        ("merge-units(0, units=[], into=[])", gg.MutationError, "at least one"),
        ("merge-units(0, units=[1, 1], into=[0, 2])", gg.MutationError, "each once"),
        ("merge-units(0, units=[1, 2], into=[2, 3])", gg.MutationError, "cannot be one that stays"),
        ("merge-units(0, units=[1], into=[0])", gg.Declined, "differ in `0.weight`"),
        ("merge-units(2, units=[1], into=[0])", gg.Declined, "frozen"),
    ],
)
def test_refusals(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        gg.apply(net(nn.Tanh()), text)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizer_state_comes_back(kind: type[torch.optim.Optimizer]) -> None:
    """Moments of the parent, spread by split and gathered again: within rounding, since shares are least squares.

    Squares are spread by the squared shares, whose roots add up to a little more than the shares do.
    """
    graph = net(nn.Tanh())
    options = {"lr": 1e-2, **({"momentum": 0.9} if kind is torch.optim.SGD else {})}
    optimizer = kind(graph.module.parameters(), **options)  # type: ignore[arg-type]
    graph.module(torch.randn(5, 3).double()).square().sum().backward()
    optimizer.step()
    before = {n: copy.deepcopy(optimizer.state[p]) for n, p in graph.module.named_parameters()}
    text = "merge-units(0, units=[4..7], into=[0..3])"
    back = gg.apply(graph, ["split(0)", text], optimizer=optimizer)
    for name, parameter in back.module.named_parameters():
        for key, state in before[name].items():
            if isinstance(state, torch.Tensor) and state.dim():
                found = optimizer.state[parameter][key]
                more = found / state - 1 if key == "exp_avg_sq" else torch.zeros(())
                assert -1e-9 < float(more.min()) <= float(more.max()) < 0.05, (name, key)
                assert key == "exp_avg_sq" or torch.allclose(found, state, rtol=1e-9, atol=1e-12), (name, key)


def test_without_data_the_structure_is_rebuilt() -> None:
    bare = gg.apply(without_data(net(nn.ReLU())), ["split(0)", "merge-units(0, units=[0, 5], into=[4, 1])"])
    assert [tuple(p.shape) for p in bare.module.parameters()] == [(6, 3), (6,), (2, 6), (2,)]


def test_a_table_that_is_shared_out_on_its_writing_side() -> None:
    """q k: the rows of q hold shares, those of k copies; the sum goes to q."""
    model = Forward(lambda m, x: (m.q(x) * m.k(x)).sum(-1), q=nn.Linear(3, 4), k=nn.Linear(3, 4)).double()
    graph = gg.trace(model, torch.randn(2, 3).double())
    child = gg.apply(graph, "split(q)")
    (mutation,) = child.mutations("merge-units")
    assert_same_bits(grown(child, str(mutation)).module, graph.module)
