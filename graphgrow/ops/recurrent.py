"""Recurrent layers and their cells: gates packed in one axis, each over the hidden units.

The rows of a weight are gates x hidden. New hidden units start afresh in every gate; the old gates read them with
zero, through the columns of `weight_hh`, and so does what follows. Copies share those columns, and stay copies at every
step. A layer has one `hidden_size`, so all its layers and directions grow together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Concat, Space, Term, product
from graphgrow.ir.value import Fresh, Value
from graphgrow.layers import PaddedGRU, PaddedLSTM, PaddedRNN
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule

_GATES: dict[type, int] = {
    nn.RNN: 1, nn.RNNCell: 1, PaddedRNN: 1, nn.GRU: 3, nn.GRUCell: 3, PaddedGRU: 3,
    nn.LSTM: 4, nn.LSTMCell: 4, PaddedLSTM: 4,
}  # fmt: skip


@dataclass(frozen=True)
class _Widths:
    """The spaces of a recurrent module.

    Attributes:
        hidden: the units of the cell.
        out: what a step puts out and reads again: the hidden units, or their projection, which is frozen.
        packed: the rows of a weight.
    """

    hidden: Space
    out: Space
    packed: Term

    @classmethod
    def of(cls, call: Call) -> _Widths:
        """The spaces of the module that is called, with the attributes that restate them."""
        module: Any = call.module
        gates, projected = _GATES[type(module)], getattr(module, "proj_size", 0)
        hidden = call.space(module.hidden_size, "hidden")
        call.attribute("hidden_size", hidden)
        out = hidden
        if projected:
            out = call.fixed(
                projected, "a projection, which must stay narrower than the hidden units"
            )  # torch's own rule
        packed = hidden if gates == 1 else product((call.fixed(gates, "the gates of a recurrent layer"), hidden))
        return cls(hidden, out, packed)


@dataclass(frozen=True)
class _Start:
    """The state that a cell is given: its value and the axes of it that are the batch."""

    value: Value
    batch: tuple[int, ...]


@rule(nn.RNN, nn.GRU)
def recurrent(call: Call, input: Value, hx: Value | None = None) -> tuple[Value, Value]:
    """(L, N, in) -> (L, N, directions x hidden) and the last state (layers x directions, N, hidden)."""
    output, states, _ = _layers(call, input, [] if hx is None else [hx])
    return output, states


@rule(nn.LSTM)
def memory(call: Call, input: Value, hx: Any = None) -> tuple[Value, tuple[Value, Value]]:
    """(L, N, in) -> (L, N, directions x out) and the last states, each (layers x directions, N, its width)."""
    output, states, cells = _layers(call, input, [] if hx is None else list(hx))
    return output, (states, cells)


@rule(PaddedRNN, PaddedGRU)
def recurrent_over_lengths(
    call: Call, input: Value, hx: Value | None = None, lengths: Value | None = None, time_first: bool = True,
    enforce_sorted: bool = True, total_length: Any = None,
) -> tuple[Value, Value]:  # fmt: skip
    """The same over sequences of several lengths, padded to one, in a layout of their own."""
    output, states, _ = _layers(call, input, [] if hx is None else [hx], lengths, time_first)
    return output, states


@rule(PaddedLSTM)
def memory_over_lengths(
    call: Call, input: Value, hx: Any = None, lengths: Value | None = None, time_first: bool = True,
    enforce_sorted: bool = True, total_length: Any = None,
) -> tuple[Value, tuple[Value, Value]]:  # fmt: skip
    """The same over sequences of several lengths, padded to one, in a layout of their own."""
    output, states, cells = _layers(call, input, [] if hx is None else list(hx), lengths, time_first)
    return output, (states, cells)


@rule(nn.RNNCell, nn.GRUCell)
def cell(call: Call, input: Value, hx: Value | None = None) -> Value:
    """(N, in), (N, hidden) -> (N, hidden)."""
    return _single(call, input, [] if hx is None else [hx])[0]


@rule(nn.LSTMCell)
def memory_cell(call: Call, input: Value, hx: Any = None) -> tuple[Value, Value]:
    """(N, in), ((N, hidden), (N, hidden)) -> the two states."""
    return _single(call, input, [] if hx is None else list(hx))


def _layers(
    call: Call, input: Value, given: list[Value], lengths: Value | None = None, time_first: bool = True
) -> tuple[Value, Value, Value]:
    """All layers and directions: the output, the last states and the last cells (the same for all but an LSTM)."""
    module: Any = call.module
    batched = len(input.axes) == 3
    time = 1 if batched and (module.batch_first if lengths is None else not time_first) else 0
    batch = 1 - time
    if lengths is not None:
        call.same(lengths.axes[0], input.axes[batch])
    call.freeze([input.axes[time]], "a recurrence over it")
    widths = _Widths.of(call)
    for value, width in zip(given, (widths.out, widths.hidden), strict=False):
        call.freeze(value.axes[:1], "the layers and directions of a recurrent state")
        call.same(value.axes[-1], width)
        if batched:
            call.same(value.axes[1], input.axes[batch])
    starts = [_Start(value, (1,) if batched else ()) for value in given]
    source, last, cells = input, [], []
    for layer in range(module.num_layers):
        if layer and module.dropout:
            call.noise(source, module.dropout)
        suffixes = [f"_l{layer}", f"_l{layer}_reverse"][: 1 + module.bidirectional]
        steps = [_step(call, source, suffix, widths, starts) for suffix in suffixes]
        last += [out for out, _ in steps]
        cells += [held for _, held in steps]
        source = _side_by_side(call, [out for out, _ in steps], 0 if layer == module.num_layers - 1 else None)
    return source, _final(call, last, time, 1), _final(call, cells, time, 2)


def _single(call: Call, input: Value, given: list[Value]) -> tuple[Value, Value]:
    """One step of one cell."""
    widths = _Widths.of(call)
    for value in given:
        call.same(value.axes[-1], widths.hidden)
        if len(input.axes) == 2:
            call.same(value.axes[0], input.axes[0])
    starts = [_Start(value, tuple(range(len(value.axes) - 1))) for value in given]
    return _step(call, input, "", widths, starts)


def _step(call: Call, source: Value, suffix: str, widths: _Widths, starts: Sequence[_Start]) -> tuple[Value, Value]:
    """One layer in one direction, at every step: what it puts out, and what its cell holds."""
    reading, looping = call.weight(f"weight_ih{suffix}"), call.weight(f"weight_hh{suffix}")
    biases = [call.parameter(f"bias_{kind}{suffix}", Fresh.ZEROS) for kind in ("ih", "hh")]
    rows = [reading, looping, *(bias for bias in biases if bias is not None)]
    for row in rows:
        call.same(row.axes[0], widths.packed, "gates that cannot be told apart")
    call.same(looping.axes[1], widths.out)
    if suffix in ("", "_l0"):
        call.attribute("input_size", reading.axes[1])
    call.contract(source, -1, reading, 1)
    # a unit follows from its own rows in every gate, from sums over the axis, and from its own state: the cell of an
    # LSTM, the hidden state of a GRU, none in a plain one; with rows and state of zero it stays zero
    plain = isinstance(call.module, (nn.RNN, nn.RNNCell))
    kept = [] if plain else [fl.Operand(start.value, (len(start.value.axes) - 1,)) for start in starts[-1:]]
    zero = getattr(call.module, "nonlinearity", "tanh") != "relu"  # which would be dead there
    along = fl.Pointwise((*(fl.Operand(row, (0,)) for row in rows), *kept), zero=zero)
    across = fl.Pointwise((call.operand(source, drop=[-1]), *(fl.Operand(s.value, s.batch) for s in starts)))
    lead = source.axes[:-1]
    held = call.output((*lead, widths.hidden), fl.Along((widths.hidden,), along, across))
    out = held
    if isinstance(call.module, (nn.LSTM, nn.LSTMCell)):
        out = call.output(held.axes, fl.Along((widths.hidden,), along, across))
    if widths.out is not widths.hidden:
        projection = call.weight(f"weight_hr{suffix}")
        call.same(projection.axes[0], widths.out)
        call.contract(held, -1, projection, 1)
        flow = fl.Mul((call.operand(held, drop=[-1]), call.operand(projection, drop=[1])))
        out = call.output((*lead, widths.out), flow)
    call.contract(out, -1, looping, 1)
    for start in starts[:1]:
        call.contract(start.value, -1, looping, 1)
    return out, held


def _side_by_side(call: Call, outs: list[Value], index: int | None) -> Value:
    """The directions one behind the other along the last axis."""
    first = outs[0]
    parts = [value.axes[-1] for value in outs]
    joined = parts[0] if len(parts) == 1 else Concat(tuple(parts))
    along = fl.Stack(tuple(fl.Operand(value, (len(value.axes) - 1,)) for value in outs))
    across = fl.Choose(tuple(call.operand(value, drop=[-1]) for value in outs))
    return call.output((*first.axes[:-1], joined), fl.Along((joined,), along, across), index=index)


def _final(call: Call, values: list[Value], time: int, index: int) -> Value:
    """The states of all layers and directions at their last steps, on a new first axis."""
    lead = call.fixed(len(values), "the layers and directions of a recurrent state")
    rest = [axis for i, axis in enumerate(values[0].axes) if i != time]
    flow = fl.Choose(tuple(call.operand(value, drop=[time]) for value in values))
    return call.output((lead, *rest), flow, index=index)
