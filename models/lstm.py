"""A recurrent classifier of token sequences."""

from __future__ import annotations

import torch
from torch import nn


class LSTMClassifier(nn.Module):
    """Token embeddings through an LSTM; the last step's output is classified.

    Hochreiter and Schmidhuber, "Long short-term memory", 1997.

    Args:
        vocabulary: number of tokens.
        embedding: width of a token.
        hidden: width of the LSTM's state.
        layers: number of stacked LSTM layers.
        classes: number of logits.
        dropout: rate in front of the head.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 64,
        embedding: int = 32,
        hidden: int = 48,
        layers: int = 1,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token ids (batch, length), integers, to logits (batch, classes)."""
        outputs, _ = self.lstm(self.embed(tokens))
        logits: torch.Tensor = self.head(self.dropout(outputs[:, -1]))
        return logits


def lstm(*, width: int = 48, depth: int = 1, classes: int = 10) -> LSTMClassifier:
    """An LSTM classifier of 64 tokens: `depth` layers, a state of `width` units, embeddings of 32."""
    return LSTMClassifier(hidden=width, layers=depth, classes=classes)
