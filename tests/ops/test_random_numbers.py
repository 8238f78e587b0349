"""Random numbers: new units have some of their own, copies would not have those of the unit that they copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares


def _drawn(target: Any, *arguments: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 3), draw(2, 3))
        return Probe(lambda m: op(target, torch.sigmoid(m.x), *arguments), {"x": x})

    return build


def _plain(target: Any, *arguments: Any, **named: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 3), draw(2, 3))
        return Probe(lambda m: op(target, m.x * 2, *arguments, **named), {"x": x})

    return build


def _sized(target: Any, *front: Any, by_name: bool = False) -> Callable[[Draw], nn.Module]:
    """Numbers in the sizes of a tensor, added to it."""

    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 3), draw(2, 3))

        def run(m: Any) -> Any:
            return target(*front, size=m.x.shape) if by_name else target(*front, *m.x.shape)

        return Probe(lambda m: m.x + run(m).to(m.x.dtype), {"x": x})

    return build


def _one(draw: Draw) -> dict[str, torch.Tensor]:
    return {"x": normal_tensor(draw, draw(2, 3), draw(2, 3))}


def _positive(draw: Draw) -> dict[str, torch.Tensor]:
    return {"x": nn.Parameter(normal_tensor(draw, 2, 3).detach().abs().clamp(0.1, 0.9))}


def _by_anything(target: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x), _positive(draw))


ANYTHING = {"x.0": "free>free zero>free mean>free", "x.1": "free>free zero>free mean>free"}  # and no copies

CASES = [
    *(Case((target,), _plain(target, *arguments), ANYTHING) for target, arguments in (
        (torch.rand_like, ()), (torch.randn_like, ()), (torch.randint_like, (5,)), ("normal_", (1.0, 0.1)),
        ("uniform_", (-1, 1)), ("exponential_", ()), ("bernoulli", (0.3,)), ("bernoulli_", (0.3,)))),
    Case(("bernoulli_",), _plain("bernoulli_"), ANYTHING, "evenly"),
    Case(("bernoulli_",), lambda draw: Probe(lambda m: (2 * m.x).bernoulli_(m.x.sigmoid()), _one(draw)), ANYTHING,
         "by-probabilities"),
    Case(("bernoulli_",), lambda draw: Probe(lambda m: (2 * m.x).bernoulli_(m.x), _positive(draw)), {}, "by-anything"),
    *(Case((target,), _drawn(target), ANYTHING, "by-probabilities") for target in (torch.bernoulli, "bernoulli")),
    *(Case((target,), _by_anything(target), {}, "by-anything") for target in (torch.bernoulli, torch.poisson)),
    Case((torch.poisson,), _drawn(torch.poisson), ANYTHING),
    Case((torch.normal,), _plain(torch.normal, 0.5), ANYTHING, "by-means"),
    Case((torch.normal,), lambda draw: Probe(lambda m: torch.normal(0.5, m.x.sigmoid()), _one(draw)), ANYTHING,
         "by-deviations"),
    Case((torch.normal,), lambda draw: Probe(lambda m: torch.normal(0.5, m.x), _positive(draw)), {}, "by-anything"),
    Case((torch.rand,), _sized(torch.rand), ANYTHING),
    *(Case((target,), _sized(target, by_name=True), ANYTHING, "by-name") for target in (torch.rand, torch.randn)),
    Case((torch.normal,), _sized(torch.normal, 0.0, 0.5, by_name=True), ANYTHING, "sized"),
    Case((F.gumbel_softmax,), _drawn(F.gumbel_softmax), {"x.0": "free>free zero>free mean>free"}),
]  # fmt: skip


test_square = squares(CASES, 1)


class Categorical(nn.Module):
    """A choice among the rows of a table, drawn anew in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.logits, self.last = nn.Linear(6, 12), nn.Linear(12, 5), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.randn(5, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = F.gumbel_softmax(self.logits(torch.relu(self.first(x))), tau=0.7)
        result: torch.Tensor = self.last(torch.relu(chosen @ self.table))
        return result


@pytest.mark.parametrize("text", ["split(first)", "widen(first, extra=3)", "widen(table, extra=2)"])
def test_parent_and_child_are_compared_with_the_same_numbers(text: str) -> None:
    """They were drawn anew for each, and an exact growth was called wrong."""
    torch.manual_seed(0)
    graph = gg.trace(Categorical(), torch.randn(4, 6))
    assert "a softmax over it (at `gumbel_softmax`)" in graph.explain()
    verdict = gg.verify(graph, gg.apply(graph, text))
    assert verdict.preserved, verdict


NOISES: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "added in train mode": lambda m, h: h + 0.1 * torch.randn_like(h) if m.training else h,
    "added in both modes": lambda m, h: h + 0.1 * torch.randn(h.shape),
    "multiplied": lambda m, h: h * (1 + 0.1 * torch.randn(h.shape[0], 12)) if m.training else h,
    "dropout by hand": lambda m, h: h * (torch.rand_like(h) > 0.3).to(h.dtype) / 0.7 if m.training else h,
    "a mask by probabilities": lambda m, h: h * torch.bernoulli(torch.full_like(h, 0.7)) if m.training else h,
    "in place": lambda m, h: h + torch.zeros_like(h).normal_(0.0, 0.1) if m.training else h,
    "Gumbel's": lambda m, h: h - torch.log(1e-20 - torch.log(torch.rand_like(h) + 1e-20)),
}


class Noisy(nn.Module):
    """Two layers, and noise on what is between them."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.run = nn.Linear(6, 12), nn.Linear(12, 3), run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.tanh(self.run(self, self.first(x))))
        return result


@pytest.mark.parametrize("name", NOISES)
def test_noise_on_features_goes_along_with_new_units(name: str) -> None:
    torch.manual_seed(0)
    graph = gg.trace(Noisy(NOISES[name]), torch.randn(4, 6))
    child = gg.apply(graph, "widen(first, extra=3)")
    verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved, verdict


@pytest.mark.parametrize("name", ["added in both modes", "Gumbel's"])
def test_noise_never_goes_along_with_copies(name: str) -> None:
    graph = gg.trace(Noisy(NOISES[name]), torch.randn(4, 6))
    with pytest.raises(gg.Declined, match="random numbers are drawn for each copy apart"):
        gg.apply(graph, "split(first)")


@pytest.mark.parametrize("name", sorted(set(NOISES) - {"added in both modes", "Gumbel's"}))
def test_copies_under_noise_of_train_mode_alone_are_exact_in_eval_mode(name: str) -> None:
    torch.manual_seed(0)
    model, x = Noisy(NOISES[name]).double(), torch.randn(4, 6, dtype=torch.float64)
    graph = gg.trace(model, x)
    child = gg.apply(graph, "split(first)")
    assert torch.allclose(child.module.eval()(x), model.eval()(x), rtol=1e-12, atol=1e-12)
    verdict = gg.verify(graph, child)
    assert verdict.preserved, verdict
    assert "declared exact in eval mode alone: split(first)" in str(verdict)


def test_noise_that_eval_mode_reads_too_is_no_noise_of_train_mode_alone() -> None:
    """One draw, scaled by the mode: what a `ByMode` picks is another number, and the noise counts in both."""
    graph = gg.trace(Noisy(lambda m, h: h + torch.randn_like(h) * (0.1 if m.training else 0.01)), torch.randn(4, 6))
    with pytest.raises(gg.Declined, match="random numbers are drawn for each copy apart"):
        gg.apply(graph, "split(first)")


def test_dropout_by_its_function_under_a_branch_of_the_mode() -> None:
    """F.dropout drops by default, and the branch is what makes it noise of train mode."""
    graph = gg.trace(Noisy(lambda m, h: F.dropout(h, 0.3) if m.training else h), torch.randn(4, 6))
    child = gg.apply(graph, "split(first)")
    verdict = gg.verify(graph, child)
    assert verdict.preserved, verdict
    assert "eval mode alone" in str(verdict)


def test_the_distribution_of_outputs_stays() -> None:
    """Moments over many draws of the network itself, against those that follow from its weights by hand."""
    torch.manual_seed(0)
    graph = gg.trace(Noisy(lambda m, h: 0.01 * h + 0.01 * torch.randn_like(h)), torch.randn(4, 6))
    child = gg.apply(graph, ["widen(first, extra=3)", "widen(first, extra=2)"])
    weight = graph.module.get_parameter("last.weight").detach()
    with torch.no_grad():  # tanh(z) is z here, but for a part in 10,000
        found = child.module(torch.randn(1, 6).expand(20_000, 6))
    wanted = 1e-4 * weight @ weight.T
    assert torch.allclose(found.T.cov(), wanted, atol=0.05 * float(wanted.diagonal().max()))


def test_a_grown_network_without_its_noise_is_found_out() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Noisy(NOISES["added in both modes"]), torch.randn(4, 6))
    child = gg.apply(graph, "widen(first, extra=3)")
    (noise,) = (node for node in child.module.graph.nodes if "randn" in node.name)
    noise.target = torch.zeros
    child.module.recompile()
    assert gg.verify(graph, child).preserved is False
