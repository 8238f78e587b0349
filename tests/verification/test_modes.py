"""What a verdict says of graphs that hold for one mode, that cannot be run in float64, or that drop elements."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.rewrite.small_models import Forward


def traced(run: Callable[[Any, Any], Any], train: bool = False, **members: Any) -> gg.Graph:
    torch.manual_seed(0)
    layers = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 2), **members}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a graph holds for one mode
        return gg.trace(Forward(run, **layers).train(train), torch.randn(6, 3))


def two_answers(m: Any, x: torch.Tensor) -> Any:
    """Besides the answer in train mode what is hidden."""
    h = m.a(x)
    return (m.b(h), h) if m.training else m.b(h)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_graph_of_one_mode_is_compared_in_that(mode: str) -> None:
    graph = traced(two_answers, train=mode == "train")
    assert graph.modes == {mode}
    verdict = gg.verify(graph, gg.apply(graph, "deepen(a, kind=mlp)"), modes=("eval", "train", "alive"))
    assert verdict.preserved is True, verdict
    assert verdict.modes == (mode, "alive")
    other = "eval" if mode == "train" else "train"
    assert f"the graph holds for {mode} mode alone: in {other} mode nothing was compared" in verdict.notes


def test_graphs_that_hold_for_no_common_mode_leave_it_open() -> None:
    verdict = gg.verify(traced(two_answers), traced(two_answers, train=True))
    assert verdict.preserved is None
    assert "one graph holds for train mode alone, and the other for eval mode alone" in str(verdict)


def test_a_cast_to_complex_numbers_is_followed_in_float64() -> None:
    graph = traced(
        lambda m, x: m.d(m.c(x.cfloat())).abs(),
        c=nn.Linear(3, 4, dtype=torch.cfloat),
        d=nn.Linear(4, 2, dtype=torch.cfloat),
    )
    verdict = gg.verify(graph, gg.apply(graph, "split(c)"), modes=("eval", "train", "float16"))
    assert verdict.preserved is True, verdict
    assert any("not compared, the model has complex weights" in note for note in verdict.notes)


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.b(F.dropout(m.a(x), 0.5, m.training)),
        lambda m, x: m.b(m.drop(m.a(x))),
        lambda m, x: m.b(F.scaled_dot_product_attention(m.a(x)[None], m.a(x)[None], m.a(x)[None], dropout_p=0.1)[0]),
        lambda m, x: m.b(m.attention(*[m.a(x)[None]] * 3, need_weights=False)[0][0]),
    ],
    ids=["function", "layer", "attention", "attention layer"],
)
def test_what_drops_elements_is_compared_without(run: Callable[[Any, Any], Any]) -> None:
    graph = traced(run, drop=nn.Dropout(0.3), attention=nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True))
    modes = ("eval", "train", "gradients", "alive", "bfloat16")
    verdict = gg.verify(graph, gg.apply(graph, "deepen(b, kind=mlp)"), modes=modes)
    assert verdict.preserved is True, verdict
    damaged = gg.apply(graph, "deepen(b, kind=mlp)", share=False)
    with torch.no_grad():
        damaged.module.get_parameter("a.bias")[0] += 1e-4
    assert gg.verify(graph, damaged, modes=modes).preserved is False


def test_a_parameter_that_became_a_buffer_is_no_longer_what_it_was() -> None:
    graph = traced(lambda m, x: m.b(m.a(x)))
    grown = gg.apply(graph, "widen(a, extra=1)", share=False)
    layer = grown.module.get_submodule("b")
    bias = layer.bias.detach()
    del layer.bias
    layer.register_buffer("bias", bias)
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is False
    assert "b.bias" in str(verdict)


class Narrowing(nn.Module):
    """Answers in float32, whatever it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().sin()


def test_a_model_that_cannot_be_run_in_float64_leaves_it_open() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Narrowing(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(2, 3), leaves=[Narrowing])
    verdict = gg.verify(graph, gg.apply(graph, "widen(2, extra=1)"))
    assert verdict.preserved is None
    assert "the model cannot be run in float64" in str(verdict)


def test_statistics_by_a_function_are_counted_in_train_mode() -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        return m.b(F.batch_norm(m.a(x), m.mean, m.variance, training=True))

    model = Forward(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    model.register_buffer("mean", torch.zeros(4))
    model.register_buffer("variance", torch.ones(4))
    graph = gg.trace(model.train(), torch.randn(6, 3))
    verdict = gg.verify(graph, gg.apply(graph, "widen(a, extra=2)"))
    assert verdict.preserved is True, verdict
    assert {check.what for check in verdict.checks if check.mode == "train"} >= {"buffers after the step"}


def test_a_leaf_that_draws_random_numbers_draws_the_same_for_both() -> None:
    """As ViLT's embeddings, which choose patches at random; the graphs run side by side, from one random state."""

    class Shuffled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[torch.randperm(len(x))]

    torch.manual_seed(0)
    model = nn.Sequential(Shuffled(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    graph = gg.trace(model, torch.randn(5, 4), leaves=[Shuffled])
    verdict = gg.verify(graph, gg.apply(graph, "widen(1, extra=2)"))
    assert verdict.preserved is True, verdict
