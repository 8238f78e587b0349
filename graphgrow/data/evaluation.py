"""Loss and accuracy on a part of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.data.parts import Part


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats and accuracy in [0, 1], over samples or tokens."""

    loss: float
    accuracy: float


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of (batch, classes) against (batch,), or of (batch, length, tokens) against the tokens."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())


def score(module: nn.Module, part: Part, batch_size: int = 512) -> Score:
    """Evaluate in eval mode, on the device of the module; the mode is put back."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    loss = right = 0.0
    with torch.no_grad():
        for start in range(0, len(part), batch_size):
            inputs, targets = (t[start : start + batch_size].to(device) for t in (part.inputs, part.targets))
            logits = module(inputs)
            loss += float(loss_of(logits, targets)) * len(inputs)
            right += float((logits.argmax(-1) == targets).double().mean()) * len(inputs)
    module.train(training)
    return Score(loss / len(part), right / len(part))
