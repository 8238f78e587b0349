"""Loss and accuracy on a part of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.data.parts import Data, Part
from graphgrow.errors import DataError
from graphgrow.graph import Graph


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


def require_logits(graph: Graph, name: str, data: Data) -> None:
    """Refuse a model that cannot answer with every class of the data.

    Args:
        graph: of the model.
        name: of the model, for the message.
        data: that it is to learn.

    Raises:
        DataError: if it returns no tensor of logits, or has fewer outputs than there are classes.
    """
    (output,) = (node for node in graph.module.graph.nodes if node.op == "output")
    logits = output.args[0].meta["value"] if isinstance(output.args[0], fx.Node) else None
    if not isinstance(logits, torch.Tensor):
        raise DataError(f"{name} does not return one tensor of logits; wrap it in a module that does")
    if logits.shape[-1] < data.classes:
        raise DataError(
            f"{name} has {logits.shape[-1]} outputs, but {data.source} has {data.classes} classes; give the model as "
            f"many, by `options = {{ classes = {data.classes} }}` under [model], say"
        )
