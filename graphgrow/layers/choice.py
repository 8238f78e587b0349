"""A differentiable choice between operators."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Choice(nn.Module):
    """A choice between the values of several operators: their sum, weighted by w(alpha).

    With the probabilities q = softmax(alpha / temperature), the anchor e (one operator) and the share `opened` t,

        w = (1 - t) e + t q + (q - q.detach()).

    The last term is zero, and has the gradient of q: while the choice is closed (t = 0) the weights are those of the
    anchor, to the bit and in both modes, and yet alpha learns as if it were open (a straight-through gradient). Open
    (t = 1) it is the softmax of DARTS (Liu et al., 2019, arXiv:1806.09055), or in training, with `gumbel` noise, a
    sample of the Gumbel softmax (Jang et al., 2017, arXiv:1611.01144; Maddison et al., 2017, arXiv:1611.00712).

    Args:
        names: of the operators; the first is the one that was there before.

    Attributes:
        names: as given.
        alpha: the architecture parameters, of shape (choices,).
        opened: the share t, a scalar parameter.
        anchor: one-hot, of shape (choices,).
        temperature: of the softmax, a scalar.
        gumbel: factor on the noise in train mode; 0 for none.
        hard: whether a sample is one-hot, with the gradient of the soft one.
        straight: whether the last term is there; without it the gradient is that of the function.
    """

    anchor: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.gumbel, self.hard, self.straight = 0.0, False, True
        self.alpha = nn.Parameter(torch.zeros(len(names)))
        self.opened = nn.Parameter(torch.zeros(()))
        self.register_buffer("anchor", torch.zeros(len(names)))
        self.register_buffer("temperature", torch.ones(()))
        self.start()

    def start(self) -> None:
        """Closed on the first operator; behind the closed door all are equally probable."""
        with torch.no_grad():
            self.alpha.zero_()
            self.temperature.fill_(1.0)
        self.close(0)

    def close(self, place: int) -> None:
        """Give all the weight to one operator."""
        with torch.no_grad():
            self.opened.zero_()
            self.anchor.zero_()[place] = 1.0

    def weights(self) -> torch.Tensor:
        """One weight for each operator, of shape (choices,)."""
        logits: torch.Tensor = self.alpha
        if self.training and self.gumbel:
            uniform = torch.rand_like(self.alpha).clamp(1e-6, 1 - 1e-6)
            logits = logits - self.gumbel * torch.log(-torch.log(uniform))
        soft = torch.softmax(logits / self.temperature, 0)
        value = soft.detach()
        if self.training and self.hard:
            value = F.one_hot(value.argmax(), len(self.names)).to(value)
        value = value if self.straight else soft
        weights = (1 - self.opened) * self.anchor + self.opened * value
        return weights + (soft - soft.detach()) if self.straight else weights

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """One value for each operator, all of one shape."""
        weights = self.weights()
        total = weights[0] * values[0]
        for place in range(1, len(values)):
            total = total + weights[place] * values[place]
        return total

    def extra_repr(self) -> str:
        """The operators, for printing."""
        return ", ".join(self.names)
