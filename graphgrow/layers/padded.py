"""Recurrent layers over sequences of several lengths, padded to one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Padded(nn.RNNBase):
    """Packs its input, runs the layer, and pads what that puts out: one operator, whose axes are those of the input."""

    def forward(
        self,
        input: torch.Tensor,
        hx: Any = None,
        lengths: torch.Tensor | None = None,
        time_first: bool = True,
        enforce_sorted: bool = True,
        total_length: int | None = None,
    ) -> Any:
        """Run over the first `lengths` steps of each sequence; without lengths, as the layer itself.

        Args:
            input: (L, N, in), or (N, L, in) where time is not first.
            hx: the state to begin with, as the layer takes it.
            lengths: (N,), on the CPU.
            time_first: of input and output, whatever the layer's own `batch_first` says.
            enforce_sorted: whether lengths must fall.
            total_length: of the output, zero behind each sequence's end; None for that of the longest sequence.

        Returns:
            The output, in the input's layout, and the last states, each sequence's at its own end.
        """
        run: Any = super().forward
        if lengths is None:
            return run(input, hx)
        if input.is_meta:  # no lengths can be read there: as long as may be
            output, state = run(input if time_first is not self.batch_first else input.transpose(0, 1), hx)
            return output if time_first is not self.batch_first else output.transpose(0, 1), state
        packed, state = run(pack_padded_sequence(input, lengths, not time_first, enforce_sorted), hx)
        return pad_packed_sequence(packed, not time_first, total_length=total_length)[0], state


class PaddedRNN(Padded, nn.RNN):  # type: ignore[misc]  # forwards that take more
    """`nn.RNN` between `pack_padded_sequence` and `pad_packed_sequence`."""


class PaddedGRU(Padded, nn.GRU):  # type: ignore[misc]
    """`nn.GRU` between `pack_padded_sequence` and `pad_packed_sequence`."""


class PaddedLSTM(Padded, nn.LSTM):  # type: ignore[misc]
    """`nn.LSTM` between `pack_padded_sequence` and `pad_packed_sequence`."""
