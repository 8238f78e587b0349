"""Recurrent layers and cells: every gate, layer and direction over one hidden axis."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import PaddedGRU, PaddedLSTM, PaddedRNN
from graphgrow.rulecheck.square import Square
from tests.ops.probe import Draw, Probe, normal_tensor
from tests.ops.square import Case
from tests.ops.squares import squares


def _layer(kind: type, states: int = 0, **options: Any) -> Callable[[Draw], nn.Module]:
    """A layer with so many states given; x is (length, batch, in), or has its batch first."""

    def build(draw: Draw) -> nn.Module:
        length, batch, width, hidden = (draw(2, 3) for _ in range(4))
        if options.get("proj_size"):
            hidden = 3  # a projection is narrower
        layer = kind(width, hidden, **options)
        lead = (batch, length) if options.get("batch_first") else (length, batch)
        sources = {"x": normal_tensor(draw, *lead, width)}
        sizes = (options.get("proj_size") or hidden, hidden)
        directions = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
        for name, size in zip("yz"[:states], sizes, strict=False):
            sources[name] = normal_tensor(draw, directions, batch, size)
        return Probe(lambda m: _all(m, states), sources, {"op": layer})

    return build


def _over_lengths(kind: type, states: int = 0, **options: Any) -> Callable[[Draw], nn.Module]:
    """A layer over sequences of two or three lengths, padded, with so many states given."""

    def build(draw: Draw) -> nn.Module:
        length, batch, width, hidden = (draw(2, 3) for _ in range(4))
        layer = kind(width, hidden, bias=False, **options)
        lead = (batch, length) if options.get("batch_first") else (length, batch)
        sources = {"x": normal_tensor(draw, *lead, width)}
        for name in "yz"[:states]:
            sources[name] = normal_tensor(draw, 1 + options.get("bidirectional", False), batch, hidden)
        lengths = torch.tensor([length, *(draw(1, length) for _ in range(batch - 1))])
        time_first, sorted_ = not options.get("batch_first", False), False

        def run(m: Any) -> list[Any]:
            given = {0: None, 1: getattr(m, "y", None), 2: (getattr(m, "y", None), getattr(m, "z", None))}[states]
            output, last = m.op(m.x, given, lengths, time_first, sorted_, total_length=length)
            return [output, *last] if isinstance(m.op, nn.LSTM) else [output, last]

        return Probe(run, sources, {"op": layer})

    return build


def _cell(kind: type, states: int = 0, **options: Any) -> Callable[[Draw], nn.Module]:
    """A cell with so many states given; x is (batch, in)."""

    def build(draw: Draw) -> nn.Module:
        batch, width, hidden = (draw(2, 3) for _ in range(3))
        sources = {"x": normal_tensor(draw, batch, width)}
        for name in "yz"[:states]:
            sources[name] = normal_tensor(draw, batch, hidden)
        return Probe(lambda m: _outputs(m, states), sources, {"op": kind(width, hidden, **options)})

    return build


def _outputs(m: Any, states: int) -> Any:
    if not states:
        return m.op(m.x)
    return m.op(m.x, m.y) if states == 1 else m.op(m.x, (m.y, m.z))


def _all(m: Any, states: int) -> list[Any]:
    output, last = _outputs(m, states)
    return [output, *last] if isinstance(m.op, nn.LSTM) else [output, last]


BATCH = "free>free zero>free mean>free copy>copy"
READ = "free>- zero>- mean>- copy>- share>-"
INPUT = {"x.1": BATCH, "x.2": READ}
BATCH_FIRST = {"x.0": BATCH, "x.2": READ}
ROW = {"x.0": BATCH, "x.1": READ}
HIDDEN = "free>free zero>free|zero mean>free copy>copy"  # rows and state of zero stay zero
SEVERAL = "free>free|free,zero zero>free|free,zero|zero mean>free|free,zero copy>copy"  # directions or layers
GIVEN = "free>free zero>free|zero mean>free copy>copy"
THROUGH = "free>free|zero zero>free|zero mean>free|zero copy>copy"  # the state is summed over, and goes no further
DEAD = "free>free zero>free mean>free copy>copy"  # a ReLU would never leave zero

CASES = [
    Case((nn.RNN,), _layer(nn.RNN), {**INPUT, "op.bias_hh_l0.0": GIVEN}),
    Case((nn.RNN,), _layer(nn.RNN, 1, nonlinearity="relu", bias=False), {**INPUT, "y.2": DEAD}, "relu-given"),
    Case((nn.GRU,), _layer(nn.GRU, batch_first=True), {**BATCH_FIRST, "op.bias_hh_l0.0:1": HIDDEN}),
    Case((nn.GRU,), _layer(nn.GRU, 1, bias=False), {**INPUT, "y.2": GIVEN}, "given"),
    Case((nn.LSTM,), _layer(nn.LSTM), {**INPUT, "op.bias_hh_l0.0:1": HIDDEN}),
    Case((nn.LSTM,), _layer(nn.LSTM, 2, bias=False), {**INPUT, "y.2": THROUGH}, "given"),
    Case((nn.LSTM,), _layer(nn.LSTM, proj_size=2), {**INPUT, "op.bias_hh_l0.0:1": HIDDEN}, "projection"),
    Case((nn.LSTM,), _layer(nn.LSTM, bidirectional=True, bias=False),
         {**INPUT, "op.weight_hh_l0.0:1": SEVERAL}, "bidirectional"),
    Case((nn.LSTM,), _layer(nn.LSTM, num_layers=2, bias=False),
         {**INPUT, "op.weight_hh_l0.0:1": SEVERAL}, "two-layers"),
    Case((PaddedRNN,), _over_lengths(PaddedRNN, 1, nonlinearity="relu"), {"x.2": READ, "y.2": DEAD}, "given"),
    Case((PaddedGRU,), _over_lengths(PaddedGRU, bidirectional=True, batch_first=True),
         {"x.2": READ, "op.weight_hh_l0.0:1": SEVERAL}, "bidirectional"),
    Case((PaddedLSTM,), _over_lengths(PaddedLSTM), {"x.2": READ, "op.weight_hh_l0.0:1": HIDDEN}),
    Case((PaddedLSTM,), _over_lengths(PaddedLSTM, 2), {"x.2": READ, "y.2": THROUGH}, "given"),
    Case((nn.RNNCell,), _cell(nn.RNNCell, 1), {**ROW, "y.1": THROUGH}),
    Case((nn.RNNCell,), _cell(nn.RNNCell, 1, nonlinearity="relu"), {**ROW, "y.1": DEAD}, "relu"),
    Case((nn.GRUCell,), _cell(nn.GRUCell, 1), {**ROW, "y.1": GIVEN}),
    Case((nn.GRUCell,), _cell(nn.GRUCell), {**ROW, "op.bias_hh.0:1": HIDDEN}, "from-zeros"),
    Case((nn.LSTMCell,), _cell(nn.LSTMCell, 2, bias=False), {**ROW, "y.1": THROUGH}),
    Case((nn.LSTMCell,), _cell(nn.LSTMCell), {**ROW, "op.bias_hh.0:1": HIDDEN}, "from-zeros"),
]  # fmt: skip


test_square = squares(CASES, 3)


# -- whole models --------------------------------------------------------------------------------------------


class _Both(nn.Module):
    """A bidirectional GRU of two layers over features of a convolution; the last states of both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 6, 3, padding=1)
        self.gru = nn.GRU(6, 5, 2, bidirectional=True, batch_first=True, dropout=0.3)
        self.head, self.last = nn.Linear(10, 4), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, last = self.gru(self.conv(x).transpose(1, 2))
        result: torch.Tensor = self.head(outputs.mean(1)) + self.last(torch.cat((last[-2], last[-1]), 1))
        return result


class _Stacked(nn.Module):
    def __init__(self, nonlinearity: str) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 6), nn.Linear(5, 4)
        self.rnn = nn.RNN(6, 5, num_layers=2, nonlinearity=nonlinearity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.rnn(self.first(x))[1][-1])
        return result


class _Translating(nn.Module):
    """The last state of an encoder is the first one of a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(11, 6), nn.Embedding(11, 7)
        self.encoder, self.decoder = nn.LSTM(6, 5, batch_first=True), nn.LSTM(7, 5, batch_first=True)
        self.head = nn.Linear(5, 11)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        _, state = self.encoder(self.source(source))
        result: torch.Tensor = self.head(self.decoder(self.target(target), state)[0])
        return result


class _Zeros(nn.Module):
    """States of zeros that the model makes itself, and directions that are told apart by a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 6), nn.Linear(5, 4)
        self.lstm = nn.LSTM(6, 5, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(2, x.shape[0], 5)
        outputs, _ = self.lstm(self.first(x), (start, start))
        result: torch.Tensor = self.head(outputs[:, -1, :5] + outputs[:, 0, 5:])
        return result


class _Unrolled(nn.Module):
    """A cell in a loop, whose first state is left out."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.first, self.cell, self.head = nn.Linear(3, 6), kind(6, 5), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state: Any = None
        x = self.first(x)
        for step in range(3):
            state = self.cell(x[:, step], state)
        result: torch.Tensor = self.head(state[0] if isinstance(self.cell, nn.LSTMCell) else state)
        return result


def _tokens(length: int) -> torch.Tensor:
    return torch.arange(2 * length).reshape(2, length) % 11


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, ...]], str]] = {
    "both directions": (_Both, lambda: (torch.randn(2, 3, 7),), "gru:hidden"),
    "two layers, tanh": (lambda: _Stacked("tanh"), lambda: (torch.randn(7, 2, 3),), "rnn"),
    "two layers, relu": (lambda: _Stacked("relu"), lambda: (torch.randn(7, 2, 3),), "rnn"),
    "without a batch": (lambda: _Stacked("tanh"), lambda: (torch.randn(7, 3),), "rnn"),
    "encoder and decoder": (_Translating, lambda: (_tokens(7), _tokens(4)), "encoder:hidden"),
    "zeros": (_Zeros, lambda: (torch.randn(2, 7, 3),), "lstm:hidden"),
    "LSTM cell": (lambda: _Unrolled(nn.LSTMCell), lambda: (torch.randn(2, 4, 3),), "cell:hidden"),
    "GRU cell": (lambda: _Unrolled(nn.GRUCell), lambda: (torch.randn(2, 4, 3),), "cell:hidden"),
}


@pytest.mark.parametrize("name", MODELS)
def test_growth_of_a_whole_model_is_preserved(name: str) -> None:
    torch.manual_seed(0)
    build, example, group = MODELS[name]
    graph = gg.trace(build(), example())
    assert not graph.analysis.unknown
    for mutation in (f"widen({group}, extra=3)", f"split({group})"):
        verdict = gg.verify(graph, gg.apply(graph, mutation))
        assert verdict.preserved, f"{mutation}: {verdict}"
    for listed in graph.mutations("widen"):  # the width of the input among them
        verdict = gg.verify(graph, gg.apply(graph, listed))
        assert verdict.preserved, f"{listed}: {verdict}"


def test_the_units_behind_a_projection_grow_and_the_projection_stays() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 6, 2, proj_size=4, bidirectional=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.lstm(x)[0])
            return result

    torch.manual_seed(0)
    graph = gg.trace(Projected(), torch.randn(5, 2, 3))
    grown = gg.apply(graph, ["widen(lstm:hidden, extra=2)", "split(lstm:hidden)"])
    assert gg.verify(graph, grown).preserved
    assert (grown.module.lstm.hidden_size, grown.module.lstm.proj_size) == (16, 4)
    with pytest.raises(gg.Declined, match="must stay narrower"):
        gg.apply(graph, "split(lstm)")


def test_new_units_are_learnt_from_the_first_step_on() -> None:
    torch.manual_seed(0)
    graph = gg.trace(_Both(), torch.randn(2, 3, 7))
    grown: Any = gg.apply(graph, "widen(gru:hidden, extra=2)").module
    assert (grown.gru.input_size, grown.gru.hidden_size) == (6, 7)
    old, new = grown.gru.weight_hh_l1_reverse.reshape(3, 7, 7)[:, :5], grown.gru.weight_ih_l0.reshape(3, 7, 6)[:, 5:]
    assert torch.equal(old[:, :, 5:], torch.zeros(3, 5, 2))
    assert torch.equal(old[:, :, :5].reshape(15, 5), graph.module.get_parameter("gru.weight_hh_l1_reverse"))
    assert new.abs().min() > 0
    grown(torch.randn(2, 3, 7)).square().sum().backward()
    columns = grown.gru.weight_hh_l1_reverse.grad.reshape(3, 7, 7)[:, :5, 5:]
    assert columns.abs().min() > 0


def test_a_grown_layer_holds_its_own_parameters_and_leaves_the_parents_alone(tmp_path: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, 3)
    graph = gg.trace(_Zeros(), x)
    before = graph.module(x)
    grown = gg.apply(graph, ["widen(first, extra=2)", "split(lstm:hidden)"])
    lstm: Any = grown.module.lstm
    present = [getattr(lstm, name) for name in lstm._flat_weights_names]
    assert all(held is weight for held, weight in zip(lstm._flat_weights, present, strict=True))
    assert [tuple(weight.shape) for weight in lstm.all_weights[1]] == [(40, 8), (40, 10), (40,), (40,)]
    twin = copy.deepcopy(grown.module).double().float()
    assert torch.equal(twin(x), grown.module(x))
    twin.load_state_dict({name: torch.zeros_like(t) for name, t in twin.state_dict().items()}, assign=True)
    assert torch.equal(twin(x), torch.zeros(2, 4))
    gg.save(grown, tmp_path / "grown")
    assert torch.equal(gg.load(tmp_path / "grown", model=_Zeros()).module(x), grown.module(x))
    assert torch.equal(graph.module(x), before)


def test_a_state_that_is_an_input_freezes_the_units_with_the_reason() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gru, self.head = nn.Linear(3, 6), nn.GRU(6, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.gru(self.first(x), state)[0])
            return result

    graph = gg.trace(Given(), (torch.randn(4, 2, 3), torch.randn(1, 2, 5)))
    assert "a model input (at `state`)" in str(graph.group("gru").frozen)
    assert "widen(first, extra=3)" in map(str, graph.mutations())


def test_dropout_between_layers_is_noise() -> None:
    def facts(**options: Any) -> Any:
        return Square.of(_layer(nn.GRU, **options)(lambda low, high: low), (nn.GRU,)).facts

    assert facts(num_layers=2, dropout=0.5).noises
    assert not facts(num_layers=2).noises
    assert not facts(num_layers=1).noises


def test_a_grown_layer_is_exported_to_onnx(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    graph = gg.trace("graphgrow:lstm")
    grown = gg.apply(graph, ["widen(lstm, extra=8)", "widen(embed, extra=4)"])
    record = gg.export_onnx(grown, tmp_path / "grown.onnx")
    assert record.dynamic_batch
    assert record.max_error <= record.bound
