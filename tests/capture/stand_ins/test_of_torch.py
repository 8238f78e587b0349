"""What is patched while a trace runs is torch's own again afterwards, also where the trace fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.capture.stand_ins.of_torch import (
    layers_stay,
    masks_taken_as_given,
    parameters_of_distributions_unchecked,
    scripts_open,
    wrapped_functions_open,
)
from graphgrow.capture.tracing.tracer import ShapeTracer
from tests.preserved import assert_preserved

PATCHES: list[Callable[[], AbstractContextManager[None]]] = [
    lambda: layers_stay(ShapeTracer({})),
    masks_taken_as_given,
    parameters_of_distributions_unchecked,
    scripts_open,
    wrapped_functions_open,
]


@pytest.mark.parametrize("patch", PATCHES)
def test_torch_is_as_it_was(patch: Callable[[], AbstractContextManager[None]]) -> None:
    def state() -> tuple[object, ...]:
        wrapped = dict(fx._symbolic_trace._wrapped_fns_to_patch)
        checked = torch.distributions.Distribution._validate_args
        return (
            nn.modules.transformer._detect_is_causal_mask,
            nn.Module.to,
            nn.Module._apply,
            wrapped,
            checked,
            vars(torch.jit.ScriptFunction).get("__call__"),
        )

    before = state()
    with pytest.raises(KeyError), patch():
        raise KeyError
    assert state() == before


@torch.jit.script
def _gates(a: torch.Tensor, b: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    count = channels[0]
    return torch.tanh((a + b)[:, :count]) * torch.sigmoid((a + b)[:, count:])


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.beside, self.last = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(_gates(self.first(x), self.beside(x), torch.IntTensor([4])))
        return result


def test_a_scripted_function_is_traced_as_it_was_written() -> None:
    torch.manual_seed(0)
    model, x = Gated().double(), torch.randn(5, 3).double()
    graph = gg.trace(model, x, way="fx")
    torch.testing.assert_close(graph.module(x), model(x), rtol=1e-12, atol=1e-12)
    growths = list(graph.mutations("widen"))
    assert growths
    for growth in growths:
        assert_preserved(graph, gg.apply(graph, growth))


def test_a_mask_is_not_looked_into() -> None:
    seen = nn.modules.transformer._detect_is_causal_mask
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert seen(mask, None, 3) is True
    with masks_taken_as_given():
        assert nn.modules.transformer._detect_is_causal_mask(mask, None, 3) is False


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.deviation = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.body(x))
        policy = torch.distributions.Normal(self.mean(hidden), self.deviation(hidden).exp())
        return policy.log_prob(action).sum(-1), policy.entropy().sum(-1)


def test_a_distribution_is_traced_whether_or_not_its_parameters_are_checked() -> None:
    """Dynamo ends the checks of a process for good; a graph must not depend on who was captured before."""
    kind, model, inputs = torch.distributions.Distribution, Policy().double(), torch.randn(2, 4, 3).double()
    before, texts = kind._validate_args, []
    try:
        for checked in (True, False):
            kind.set_default_validate_args(checked)
            graph = gg.trace(model, (inputs[0], inputs[1, :, :2]), way="fx")
            assert kind._validate_args is checked
            texts.append(graph.text())
    finally:
        kind.set_default_validate_args(before)
    assert texts[0] == texts[1]
    for mutation in ("widen(body, extra=2)", "split(body)"):
        assert_preserved(graph, gg.apply(graph, mutation), batch_sizes=(None, 3))


DRAWN: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    lambda mean, deviation: torch.distributions.Normal(mean, deviation).rsample(),
    lambda mean, deviation: torch.distributions.Normal(mean, deviation).sample((3,)).mean(0),
    lambda mean, deviation: torch.distributions.Independent(torch.distributions.Normal(mean, deviation), 1).rsample(),
    lambda mean, deviation: torch.distributions.Uniform(mean, mean + deviation).rsample(),
    lambda mean, deviation: mean * torch.distributions.Categorical(logits=deviation).sample().unsqueeze(-1),
    lambda mean, deviation: mean * torch.distributions.Bernoulli(logits=deviation).sample(),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_samples_are_drawn_for_a_batch_of_any_size(draw: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mean, self.deviation = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.tanh(self.body(x))
            return draw(self.mean(hidden), self.deviation(hidden).exp())

    model = Drawing()
    graph = gg.trace(model, torch.randn(2, 3), way="fx")
    inputs, answers = torch.randn(5, 3), []
    for module in (model, graph.module, gg.apply(graph, "widen(body, extra=2)").module):
        torch.manual_seed(1)
        answers.append(module(inputs))
    assert torch.equal(answers[0], answers[1])
    torch.testing.assert_close(answers[2], answers[0])


class Moves(nn.Module):
    def __init__(self, move: Callable[[nn.Module, torch.Tensor], nn.Module]) -> None:
        super().__init__()
        self.first, self.last, self.move = nn.Linear(3, 4), nn.Linear(4, 2), move

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.move(self.first, x)(x).relu())


@pytest.mark.parametrize(
    "move",
    [
        lambda layer, x: layer.to(x.device), lambda layer, x: layer.to(x.dtype), lambda layer, x: layer.to(x),
        lambda layer, x: layer.to(device=x.device, dtype=x.dtype), lambda layer, x: layer.to("cpu"),
        lambda layer, x: layer.float().cpu(),
    ],
)  # fmt: skip
def test_a_layer_that_is_moved_to_where_it_is_stays(move: Callable[[nn.Module, torch.Tensor], nn.Module]) -> None:
    model, x = Moves(move), torch.randn(2, 3)
    graph = gg.trace(model, x, way="fx")
    assert torch.equal(graph.module(x), model(x))
    assert_preserved(graph, gg.apply(graph, "widen(first, extra=2)"))


def test_a_layer_that_is_cast_is_refused() -> None:
    with pytest.raises(gg.CaptureError, match=r"moves or casts Linear, a part of the model; .*test_of_torch.py:\d+"):
        gg.trace(Moves(lambda layer, x: layer.to(torch.float64).float()), torch.randn(2, 3), way="fx")
