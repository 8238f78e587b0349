"""Packed sequences: a recurrent layer between packing and padding is one layer over padded ones, which knows lengths.

How many rows a packed sequence has depends on the lengths in a batch: it has no shape for all inputs of a size. The
padded sequences on either side have one: `pack_padded_sequence` waits for the layers that read it, each of which packs
and pads anew, and `pad_packed_sequence` returns what the last of them put out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import rnn

from graphgrow.capture.stand_ins.functions import Seen
from graphgrow.errors import CaptureError
from graphgrow.ir.editor import shallow_copy
from graphgrow.layers import PaddedGRU, PaddedLSTM, PaddedRNN

_TWINS: dict[type, type] = {nn.RNN: PaddedRNN, nn.GRU: PaddedGRU, nn.LSTM: PaddedLSTM}
_PAD = (
    "its size depends on the lengths in a batch, and a graph has one shape for all inputs of a size: pad it first "
    "(pad_packed_sequence), or mark the submodule as a leaf"
)


@dataclass(frozen=True)
class Packed:
    """What a model takes for a packed sequence while it is traced.

    Attributes:
        padded: the sequences as they are padded.
        lengths: of each of them.
        batch_first: whether the first axis of what is padded is the batch.
        enforce_sorted: as it was packed.
        layer: the recurrent layer that put it out; None as it was packed.
    """

    padded: fx.Proxy
    lengths: fx.Proxy
    batch_first: bool
    enforce_sorted: bool
    layer: fx.Node | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # isinstance goes by it too
        return rnn.PackedSequence

    def __iter__(self) -> Any:
        raise CaptureError(f"a packed sequence is taken apart; {_PAD}")

    def __getattr__(self, name: str) -> Any:
        how = "is put out, or read by another operator than a recurrent layer"  # torch.fx asks for its fields
        raise CaptureError(f"a packed sequence {how if name.startswith('_') else f'is asked for its `{name}`'}; {_PAD}")


def layer_over(module: nn.Module) -> nn.Module | None:
    """The layer that runs as a recurrent one does on packed sequences, with its parameters; None for other modules."""
    kind = _TWINS.get(type(module))
    if kind is None:
        return None
    twin = shallow_copy(module)
    twin.__class__ = kind
    return twin


def run_packed(call: Callable[..., Any], input: Packed, *args: Any, **kwargs: Any) -> tuple[Packed, Any]:
    """What a recurrent layer returns for a packed sequence: another one, and its last states.

    Args:
        call: records a call of the layer that `layer_over` gave.
        input: the sequence.
        args: the state to begin with.
        kwargs: the same by name.
    """
    options = {"time_first": not input.batch_first, "enforce_sorted": input.enforce_sorted}
    result = call(input.padded, *args, **kwargs, lengths=input.lengths, **options)
    return Packed(result[0], input.lengths, input.batch_first, input.enforce_sorted, result.node), result[1]


def _packing(original: Seen) -> Seen:
    def pack(input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> Any:
        if not isinstance(input, fx.Proxy):
            return original(input, lengths, batch_first, enforce_sorted)
        if not isinstance(lengths, fx.Proxy):
            raise CaptureError(
                "pack_padded_sequence is given lengths that are numbers of Python's, those of the example alone; "
                "let them be a tensor, among the inputs or computed from them"
            )
        return Packed(input, lengths, batch_first, enforce_sorted)

    return pack


def _padding(original: Seen) -> Seen:
    def pad(sequence: Any, batch_first: bool = False, padding_value: float = 0.0, total_length: Any = None) -> Any:
        if not isinstance(sequence, Packed):
            return original(sequence, batch_first, padding_value, total_length)
        if sequence.layer is None:
            raise CaptureError("a sequence is packed and padded again, with no recurrent layer in between; use a mask")
        if padding_value:
            raise CaptureError(
                f"pad_packed_sequence with padding_value={padding_value}; pad with zeros, and use torch.where"
            )
        if total_length is not None:
            _set_total(sequence.layer, total_length)
        padded = sequence.padded
        if batch_first is not sequence.batch_first:
            padded = padded.transpose(0, 1)
        return padded, sequence.lengths.to("cpu", torch.int64)

    return pad


def _set_total(layer: fx.Node, total: Any) -> None:
    """Let a layer pad to a length that is asked for behind it."""
    if isinstance(total, fx.Proxy):
        _bring_before(total.node, layer)
        total = total.node
    if layer.kwargs.get("total_length", total) != total:
        raise CaptureError("a packed sequence is padded to two lengths; pad it once")
    layer.kwargs = {**layer.kwargs, "total_length": total}


def _bring_before(node: fx.Node, layer: fx.Node) -> None:
    """Move a node, and all that it is worked out from, in front of a layer."""
    if node is layer:
        raise CaptureError("the total_length of a pad_packed_sequence is worked out from what the layer puts out")
    if layer < node:
        for used in node.all_input_nodes:
            _bring_before(used, layer)
        layer.prepend(node)


SEQUENCES: dict[Any, Callable[[Seen], Seen]] = {
    rnn.pack_padded_sequence: _packing,
    rnn.pad_packed_sequence: _padding,
}
"""The functions of packed sequences, and what a trace calls instead."""
