"""Model and graph run side by side: in both modes, with what they leave in buffers, and twice in a row."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.capture.trace import capture
from tests.preserved import assert_untouched, fingerprint

CALLS = [0]  # what a forward keeps outside of its model


class Stateful(nn.Module):
    """A model from a function of itself and its input, with buffers, a table and plain attributes."""

    def __init__(self, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.drop = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.ones(3))
        self.table, self.calls, self.seen, self.last = torch.zeros(3), 0, [1.0], None
        self._run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self._run(self, x)


def _counter_in_place(m: Any, x: torch.Tensor) -> Any:
    m.count += 1
    return m.linear(x) * m.count


def _counter_replaced(m: Any, x: torch.Tensor) -> Any:
    before = m.count
    m.count = m.count + 1
    return m.linear(x) * m.count + before


def _moving_average(m: Any, x: torch.Tensor) -> Any:
    h = m.linear(x)
    m.average.mul_(0.9).add_(0.1 * h.mean(0))
    return h - m.average


def _moving_average_of_parameters(m: Any, x: torch.Tensor) -> Any:
    m.average = 0.5 * m.average + 0.5 * m.linear.bias.detach()
    return m.linear(x) * m.average


def _in_train_mode_alone(m: Any, x: torch.Tensor) -> Any:
    if m.training:
        m.count.add_(1)
    return m.norm(m.linear(x))


def _plain_table(m: Any, x: torch.Tensor) -> Any:
    m.table.add_(1)
    return m.linear(x) + m.table


KEPT = [
    _counter_in_place, _counter_replaced, _moving_average, _moving_average_of_parameters, _in_train_mode_alone,
    _plain_table,
]  # fmt: skip


def _state(model: nn.Module) -> list[Any]:
    names = ("table", "calls", "last", "seen")
    held = [repr(getattr(model, name)) for name in names]
    modes = [m.training for m in model.modules()]
    return [fingerprint(model), held, modes, [*vars(model)], torch.get_rng_state().tolist(), random.getstate()]


def _assert_untouched(model: nn.Module, before: list[Any]) -> None:
    assert_untouched(model, before[0])
    assert _state(model)[1:] == before[1:]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("run", KEPT, ids=lambda run: run.__name__.strip("_"))
def test_buffers_that_a_forward_overwrites_are_overwritten_by_the_graph(
    run: Callable[..., Any], training: bool
) -> None:
    model, x = Stateful(run).train(training), torch.randn(4, 3)
    before = _state(model)
    graph = gg.trace(model, x)
    _assert_untouched(model, before)
    twin = Stateful(run).train(training)
    for _ in range(3):
        x = torch.randn(4, 3)
        torch.testing.assert_close(graph.module(x), twin(x), rtol=0, atol=0)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()), rtol=0, atol=0)


def _python_counter(m: Any, x: torch.Tensor) -> Any:
    m.calls += 1
    return m.linear(x) * m.calls


def _growing_list(m: Any, x: torch.Tensor) -> Any:
    m.seen.append(1.0)
    return m.linear(x) * len(m.seen)


def _cache(m: Any, x: torch.Tensor) -> Any:
    h = m.linear(x) if m.last is None else m.linear(x) + m.last
    m.last = h
    return h


def _outside(m: Any, x: torch.Tensor) -> Any:
    CALLS[0] += 1
    return m.linear(x) * CALLS[0]


def _python_random(m: Any, x: torch.Tensor) -> Any:
    return m.linear(x) * random.random()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (_python_counter, "keeps state in `calls`"),
        (_growing_list, "keeps state in `seen`"),
        (_cache, "keeps state in `last`"),
        (_outside, "keeps state, or draws random numbers outside of torch"),
        (_python_random, "draws random numbers outside of torch"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_state_that_a_graph_cannot_keep_is_refused_by_its_name(
    run: Callable[..., Any], words: str, training: bool
) -> None:
    model, x = Stateful(run).train(training), torch.randn(4, 3)
    before = _state(model)
    for way in ("auto", "fx"):
        with pytest.raises(gg.CaptureError, match=words):
            capture(model, x, way=way)
        _assert_untouched(model, before)


def test_a_table_that_follows_the_size_of_the_input_is_made_anew() -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        h = m.linear(x)
        if m.average.shape[0] != h.shape[0]:
            m.average = torch.arange(h.shape[0]).float()
        return h + m.average[:, None]

    model = Stateful(run)
    graph = gg.trace(model, torch.randn(4, 3))
    assert model.average.shape == (3,)
    assert "its forward sets `average`" in graph.explain()
    for batch in (4, 6):
        x = torch.randn(batch, 3)
        assert torch.equal(graph.module(x), Stateful(run)(x))


def test_what_is_set_and_never_read_is_noted() -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        m.last = m.linear(x)
        m.seen.append(0.0)
        return m.last * 2

    model, x = Stateful(run), torch.randn(4, 3)
    before = _state(model)
    graph = gg.trace(model, x)
    _assert_untouched(model, before)
    assert "its forward sets `seen`, `last`, which the graph does not" in graph.explain()


def _written_parameter(m: Any, x: torch.Tensor) -> Any:
    with torch.no_grad():
        m.linear.weight.mul_(0.5)
    return m.linear(x)


def _exchanged_data(m: Any, x: torch.Tensor) -> Any:
    m.linear.weight.data = m.linear.weight.data * 0.5
    return m.linear(x)


def _renewed_parameter(m: Any, x: torch.Tensor) -> Any:
    m.linear.weight = nn.Parameter(m.linear.weight.detach() * 0.5)
    return m.linear(x)


@pytest.mark.parametrize("run", [_written_parameter, _exchanged_data, _renewed_parameter])
def test_a_forward_that_overwrites_its_parameters_leaves_them_alone(run: Callable[..., Any]) -> None:
    model, x = Stateful(run).eval(), torch.randn(4, 3)
    before = _state(model)
    try:
        graph = gg.trace(model, x)
    except gg.CaptureError as error:
        assert "weight" in str(error) or ".data" in str(error)  # noqa: PT017  # to capture it right is fine too
        _assert_untouched(model, before)
        return
    _assert_untouched(model, before)
    twin = Stateful(run).eval()
    for _ in range(2):
        assert torch.equal(graph.module(x), twin(x))


def test_random_numbers_in_eval_mode_are_drawn_anew_and_noted() -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        noise = torch.empty(3).uniform_(0.5, 1.0) + torch.rand(3) + torch.randn(x.shape[0], 3)
        return m.linear(x) * noise + torch.rand_like(x)

    model, x = Stateful(run).eval(), torch.randn(4, 3)
    state = torch.get_rng_state()
    graph = gg.trace(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert "random in eval mode" in graph.explain()
    for seed in (1, 2):
        torch.manual_seed(seed)
        found = graph.module(x)
        torch.manual_seed(seed)
        assert torch.equal(found, model(x))
    assert not torch.equal(graph.module(x), graph.module(x))
    verdicts = [gg.verify(graph, gg.apply(graph, mutation)).preserved for mutation in graph.mutations()]
    assert verdicts == [True] * len(verdicts)
    assert verdicts


def _teacher(m: Any, x: torch.Tensor) -> Any:
    student = m.linear(x)
    with torch.no_grad():
        target = torch.softmax(m.linear(x * 2) + student, -1)
        m.average.mul_(0.9).add_(0.1 * student.mean(0))
    return student * target + m.average + (student.detach() - m.linear.bias)


def test_no_grad_stops_gradients_in_the_graph_too() -> None:
    model, x = Stateful(_teacher), torch.randn(4, 3, requires_grad=True)
    graph = gg.trace(model, x)
    twin = Stateful(_teacher)
    for _ in range(2):  # a buffer that kept the first call's gradients would fail in the second
        for one in (graph.module, twin):
            (one(x).square().sum()).backward()
    mine, theirs = (one.get_parameter("linear.weight").grad for one in (graph.module, twin))
    assert mine is not None
    assert theirs is not None
    assert torch.equal(mine, theirs)
    assert not graph.module.get_buffer("average").requires_grad


class Momentum(nn.Module):
    """A student, and a teacher without gradients that keeps the mean of its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(2))
        self.center = nn.Buffer(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.teacher(x).tanh()
            self.center.mul_(0.9).add_(target.mean(0), alpha=0.1)
        return torch.as_tensor(self.student(x) * (target - self.center))


@pytest.mark.parametrize("mutation", ["deepen(:tanh, kind=mlp)", "swap-activation(:tanh, to=gelu)"])
def test_what_is_put_in_between_sends_no_gradients_into_a_buffer(mutation: str) -> None:
    torch.manual_seed(0)
    grown = gg.apply(gg.trace(Momentum(), torch.randn(4, 3)), mutation)
    for _ in range(2):  # a buffer that kept the first step's gradients would fail in the second
        grown.module(torch.randn(4, 3)).sum().backward()
    assert not grown.module.get_buffer("center").requires_grad


def test_experts_that_nothing_would_teach_are_declined() -> None:
    graph = gg.trace(Momentum(), torch.randn(4, 3))
    assert [str(m) for m in graph.mutations("upcycle-experts")] == ["upcycle-experts(student)"]
    with pytest.raises(gg.GraphGrowError, match="without gradients"):
        gg.apply(graph, "upcycle-experts(teacher)")


def test_dropout_and_batch_norm_are_compared_in_train_mode() -> None:
    model = Stateful(lambda m, x: m.drop(m.norm(m.linear(x)))).train()
    x = torch.randn(4, 3)
    before = _state(model)
    graph = gg.trace(model, x)
    _assert_untouched(model, before)
    assert graph.modes == {"train", "eval"}
    assert graph.notes == ()


def _only_in_train(m: Any, x: torch.Tensor) -> Any:
    h = m.linear(x)
    if m.training:
        m.calls += 1
        h = h * m.calls
    return h


def test_a_difference_in_train_mode_alone() -> None:
    with pytest.raises(gg.CaptureError, match=r"in train mode .* keeps state in `calls`"):
        capture(Stateful(_only_in_train).train(), torch.randn(4, 3), way="fx")
    assert capture(Stateful(_only_in_train).eval(), torch.randn(4, 3), way="fx").modes == {"eval"}


def test_a_model_that_stops_every_gradient_is_verified() -> None:
    graph = gg.trace(Stateful(lambda m, x: torch.relu(m.linear(x)).detach()), torch.randn(4, 3))
    assert all(gg.verify(graph, gg.apply(graph, mutation)).preserved for mutation in graph.mutations())


def test_a_model_that_fails_in_train_mode_is_not_compared_there() -> None:
    graph = gg.trace(Stateful(lambda m, x: m.norm(m.linear(x))).eval(), torch.randn(1, 3))
    assert "not compared in train mode, where the model fails" in graph.explain()


def test_inputs_are_left_alone() -> None:
    x = torch.randn(2, 3)
    before = x.clone()
    gg.trace(Stateful(lambda m, x: m.linear(F.relu(x.mul_(2), inplace=True))), x)
    assert torch.equal(x, before)
