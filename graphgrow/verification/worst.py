"""The worst element of several comparisons, and the record that becomes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphgrow.verification.verdict import Check


@dataclass
class Worst:
    """The element nearest to its bound, over several comparisons.

    Attributes:
        error: its absolute error.
        bound: what that was allowed to be.
        where: the node, output or buffer that holds it.
        element: its position there.
        passed: whether every element so far is within its bound.
        ratio: error over bound; -1 where nothing was compared yet.
        count: how many tensors were compared.
        first_failure: where an element was first beyond its bound.
    """

    error: float = 0.0
    bound: float = 0.0
    where: str = "nothing"
    element: tuple[int, ...] = ()
    passed: bool = True
    ratio: float = -1.0
    count: int = 0
    first_failure: str | None = None

    def see(self, error: torch.Tensor, limit: torch.Tensor, where: str) -> None:
        """Take in errors and their limits; a NaN on either side is a failure."""
        if error.numel() == 0:
            return
        self.count += 1
        limit = limit.expand_as(error)
        passed = bool((error <= limit).all())
        if passed and self.ratio >= 0 and not bool(error.any()):
            return  # the same numbers are never the worst
        ratio = torch.where(limit > 0, error / limit, torch.where(error > 0, torch.inf, 0.0))
        ratio = torch.where(torch.isnan(ratio), torch.inf, ratio).flatten()
        worst = int(ratio.argmax())
        if not passed and self.first_failure is None:
            self.first_failure = where
        if float(ratio[worst]) > self.ratio or (self.passed and not passed):
            self.ratio = float(ratio[worst])
            self.error, self.bound = float(error.flatten()[worst]), float(limit.flatten()[worst])
            self.where = where
            self.element = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), error.shape))
        self.passed = self.passed and passed

    def differ(self, what: str) -> None:
        """Take in two values that cannot be laid side by side: other shapes, structures or types."""
        self.see(torch.tensor(torch.inf), torch.tensor(0.0), what)

    def same(self, where: str) -> None:
        """Take in two values that agree to the bit."""
        self.see(torch.zeros(()), torch.zeros(()), where)

    def check(self, mode: str, what: str, limit: str = "") -> Check:
        """The comparison as a record; `limit` says how the bound came about."""
        return Check(mode, what, self.error, self.bound, self.where, self.passed, self.element, self.count, limit)


def errors(actual: torch.Tensor, expected: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute errors and their limits; two equal infinities, or NaN on both sides, agree."""
    same = (actual == expected) | (torch.isnan(actual) & torch.isnan(expected))
    error = torch.where(same, 0.0, (actual - expected).abs())
    return error, torch.where(torch.isnan(limit), 0.0, limit).expand_as(error)


def largest(tensor: torch.Tensor) -> torch.Tensor:
    """The largest finite magnitude, 0 of an empty tensor; NaN is not counted."""
    if not tensor.numel():
        return tensor.new_zeros(())
    magnitude: torch.Tensor = torch.linalg.vector_norm(tensor.detach(), torch.inf)  # no temporary of the tensor's size
    if bool(torch.isfinite(magnitude)):
        return magnitude
    return tensor.detach().abs().nan_to_num(nan=0.0, posinf=0.0).max()
