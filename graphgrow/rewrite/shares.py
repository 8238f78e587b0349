"""How copies of units are read, and what that makes of the gradients and steps of what writes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphgrow.ir.doubles import in_double
from graphgrow.ir.positions import AxisMap, Units
from graphgrow.rewrite.roles import Role


@dataclass(frozen=True, eq=False)
class Reading:
    """The reading weights of copies beside those of the units that they are copies of, float64, for each new unit.

    A unit with reading weights r_j has a gradient of sum_j r_j d_j, where d_j are those of its readers; a copy which is
    read with weights u_j r_j has sum_j u_j r_j d_j. If the d_j were one number, that would be a times the unit's, a the
    least-squares share; if they had nothing to do with each other, its mean square would be q times the unit's, q that
    of the squared weights. They are neither, and a step that is divided by too small a root is too long: so a mean of
    gradients goes with a, and a mean of squares with q, which is a^2 at least.

    Attributes:
        share: a: the inner product of a copy's reading weights and the unit's, over the unit's squared.
        square: q: the sum of a copy's squared reading weights over that of the unit's.
        together: the sum over all copies of a unit of the root of q: by how much more the function changes if each copy
            steps as far as the unit would. It is about 1 where weights are shared out, and more where copies are read
            with opposite signs.
    """

    share: torch.Tensor
    square: torch.Tensor
    together: torch.Tensor

    def factors(self, role: Role) -> torch.Tensor:
        """What the state of a written copy is multiplied by, of shape (new units,)."""
        root = self.square.sqrt()
        if role is Role.PACE:
            return 1.0 / self.together.clamp(min=1.0)
        if role is Role.DIRECTION:  # a mean over a root of a mean of squares
            return torch.where(root > 0, self.share / root, 1.0)
        return {Role.MOMENT: self.share, Role.SQUARE: self.square, Role.MAGNITUDE: root}[role]


class Readers:
    """Gathers the reading weights of one split, tensor by tensor."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._dots, self._squares, self._whole = (torch.zeros(units.new_size, dtype=torch.float64) for _ in range(3))

    def add(self, old: torch.Tensor, new: torch.Tensor, axis: int, places: AxisMap) -> None:
        """One tensor that reads the units along an axis, before and after."""
        whole = in_double(old.detach().index_select(axis, places.source.to(old.device)))
        other = [number for number in range(old.dim()) if number != axis]
        part = in_double(new.detach())
        holding = places.unit >= 0
        unit = places.unit[holding]
        for total, products in (
            (self._dots, whole.conj() * part),
            (self._squares, part.conj() * part),
            (self._whole, whole.conj() * whole),
        ):
            sums = products.real.sum(other) if other else products.real
            total.index_add_(0, unit, sums.cpu()[holding])

    def reading(self) -> Reading | None:
        """How the copies are read; None where nothing is known, since no weights read them or all are zero."""
        if not bool((self._squares > 0).any()):
            return None
        known = self._whole > 0
        whole = torch.where(known, self._whole, 1.0)
        share = torch.where(known, self._dots / whole, 1.0)
        square = torch.where(known, self._squares / whole, 1.0)
        source = self._units.source
        roots = torch.where(known | (self._squares == 0), square, torch.inf).sqrt()  # of nothing, any step is too long
        together = torch.zeros(self._units.old_size, dtype=torch.float64).index_add_(0, source, roots)[source]
        return Reading(share, square, together)
