"""Where a graph tells train mode from eval mode."""

from __future__ import annotations

import torch
from torch import nn

from graphgrow.errors import ModeError
from graphgrow.layers.assignment import store_


class OneMode(nn.Module):
    """The check of a graph that holds in one mode alone; it reads nothing and puts out nothing.

    It stands below the module whose forward goes another way in the other mode, and so is told of that module's train()
    and eval().

    Args:
        holds_in_train: whether the mode is train mode; else it is eval mode.
        owner: the path of the module whose mode decides; empty for the whole model.

    Attributes:
        holds_in_train: as given.
        owner: as given.
        lifted: whether it checks nothing, as where two graphs of that mode are compared.
    """

    _is_impure = True  # so that torch.fx keeps a node without readers

    def __init__(self, holds_in_train: bool, owner: str = "") -> None:
        super().__init__()
        self.holds_in_train, self.owner, self.lifted = holds_in_train, owner, False

    def forward(self) -> None:
        """Refuse to go on in the other mode.

        Raises:
            ModeError: if the module is in the other mode.
        """
        if self.training is not self.holds_in_train and not self.lifted:
            mode, other = ("train", "eval") if self.holds_in_train else ("eval", "train")
            whose = f"`{self.owner}` is" if self.owner else "it is"
            raise ModeError(
                f"the graph holds for {mode} mode alone, in which the model was captured, and {whose} in {other} mode: "
                f"call {mode}(), or capture it in {other} mode: model.{other}() before gg.trace"
            )

    def extra_repr(self) -> str:
        """The mode, for printing."""
        return f"holds_in_train={self.holds_in_train}, owner={self.owner!r}"


class ByMode(nn.Module):
    """One value in train mode and another in eval mode: where a forward goes two ways and comes together again."""

    def forward(self, in_train: torch.Tensor, in_eval: torch.Tensor) -> torch.Tensor:
        """Two of one shape and dtype -> one of them."""
        return in_train if self.training else in_eval


class CopyInOneMode(nn.Module):
    """`buffer.copy_(value)` in one mode alone: what a forward keeps of its inputs while it trains.

    Args:
        in_train: whether that mode is train mode.
        unseen: whether autograd is not told, as where the forward writes into `buffer.data`.
    """

    inplace = True

    def __init__(self, in_train: bool = True, unseen: bool = False) -> None:
        super().__init__()
        self.in_train, self.unseen = in_train, unseen

    def forward(self, buffer: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Two of one shape -> the first, overwritten or not."""
        if self.training != self.in_train:
            return buffer
        return store_(buffer, value) if self.unseen else buffer.copy_(value)

    def extra_repr(self) -> str:
        """The mode, for printing."""
        return f"in_train={self.in_train}" + ", unseen=True" * self.unseen
