"""Linear algebra of whole matrices, and diagonals: axes in front of a matrix are carried along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
PARTIAL = "copy>copy"
SOLVED = "free>free zero>zero mean>mean copy>copy share>share"


def _matrices(draw: Draw, *front: int, size: int = 3) -> torch.Tensor:
    """Positive definite ones."""
    x = normal_tensor(draw, *front, size, size)
    return x @ x.mT + 3 * torch.eye(size, dtype=torch.float64)


def _of(target: Any, *arguments: Any, part: int | None = None, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        def run(m: Any) -> Any:
            found = op(target, m.x, *arguments, **options)
            return found if part is None else found[part]

        return Probe(run, {"x": _matrices(draw, draw(2, 3))})

    return build


def _solving(target: Any, order: int, *shape: int, **options: Any) -> Callable[[Draw], nn.Module]:
    """Matrices x, and what is given as y."""

    def build(draw: Draw) -> nn.Module:
        x = torch.linalg.cholesky(_matrices(draw, 2))
        return Probe(lambda m: op(target, *(m.x, m.y)[::order], **options), {"x": x, "y": normal_tensor(draw, *shape)})

    return build


def _on(target: Any, shape: tuple[int, ...], *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x, *arguments, **options), {"x": normal_tensor(draw, *shape)})


OF_EACH: list[Any] = [
    torch.det, torch.linalg.det, "det", torch.logdet, "logdet", torch.inverse, "inverse", torch.linalg.inv,
    torch.pinverse, "pinverse", torch.linalg.pinv, torch.linalg.cholesky, torch.cholesky, "cholesky",
    torch.linalg.svdvals, torch.linalg.eigvalsh, torch.linalg.matrix_norm, torch.linalg.cond,
]  # fmt: skip
IN_PARTS: dict[Any, int] = {  # of which the part says the same whatever signs are taken
    torch.slogdet: 1, torch.linalg.slogdet: 1, "slogdet": 1, torch.svd: 1, "svd": 1, torch.linalg.svd: 1,
    torch.linalg.eigh: 0, torch.linalg.qr: 1, "qr": 1,
}  # fmt: skip

CASES = [
    *(Case((target,), _of(target), {"x.0": PARTIAL}) for target in OF_EACH),
    *(Case((target,), _of(target, part=part), {"x.0": PARTIAL}) for target, part in IN_PARTS.items()),
    *(Case((target,), _of(target, 2), {"x.0": PARTIAL})
      for target in (torch.matrix_power, "matrix_power", torch.linalg.matrix_power)),
    *(Case((target,), _of(target), {"x.0": "zero>free copy>copy"}) for target in (torch.matrix_exp, "matrix_exp")),
    Case((torch.linalg.solve,), _solving(torch.linalg.solve, 1, 2, 3, 4),
         {"x.0": "copy>copy|share", "y.2": SOLVED}),
    Case((torch.linalg.solve,), _solving(torch.linalg.solve, 1, 2, 4, 3, left=False),
         {"x.0": "copy>copy|share", "y.1": SOLVED}, "from-the-right"),
    Case((torch.linalg.solve,), _solving(torch.linalg.solve, 1, 2, 3), {"x.0": "copy>copy|share"}, "vectors"),
    Case((torch.linalg.solve_triangular,), _solving(torch.linalg.solve_triangular, 1, 2, 3, 4, upper=False),
         {"x.0": "copy>copy|share", "y.2": SOLVED}),
    *(Case((target,), _solving(target, -1, 2, 3, 4), {"x.0": "copy>copy|share", "y.2": SOLVED})
      for target in (torch.cholesky_solve, "cholesky_solve")),
    *(Case((target,), _on(target, (2, 3, 3), 0, 1, 2), {"x.0": LINEAR}) for target in (torch.diagonal, "diagonal")),
    Case((torch.diagonal,), _on(torch.diagonal, (3, 4, 2), 1), {"x.2": LINEAR}, "above"),
    Case((torch.linalg.diagonal,), _on(torch.linalg.diagonal, (2, 3, 4)), {"x.0": LINEAR}),
    *(Case((target,), _on(target, (2, 4, 3)), {"x.0": LINEAR, "x.1": LINEAR})
      for target in (torch.diag_embed, "diag_embed")),
    Case((torch.diag_embed,), _on(torch.diag_embed, (2, 4, 3), 1, 0, -1), {"x.0": LINEAR, "x.1": LINEAR}, "apart"),
    *(Case((target,), _on(target, (3,)), {}) for target in (torch.diag, "diag", torch.diagflat, "diagflat")),
    *(Case((target,), _on(target, (3, 3)), {}) for target in (torch.trace, "trace")),
]  # fmt: skip


test_square = squares(CASES, 1)
