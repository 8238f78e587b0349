"""Linear algebra of whole matrices, and their diagonals: the matrices stay as they are, the axes in front go along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule

_WHOLE, _DIAGONAL = "a matrix taken as a whole", "a diagonal of it"


@rule(
    torch.det, torch.linalg.det, "det", torch.logdet, "logdet", torch.slogdet, torch.linalg.slogdet, "slogdet",
    torch.inverse, "inverse", torch.linalg.inv, torch.pinverse, "pinverse", torch.linalg.pinv,
    torch.linalg.cholesky, torch.cholesky, "cholesky", torch.linalg.qr, "qr", torch.linalg.svd, torch.svd, "svd",
    torch.linalg.svdvals, torch.linalg.eigh, torch.linalg.eigvalsh, torch.matrix_exp, "matrix_exp",
    torch.matrix_power, "matrix_power", torch.linalg.matrix_power, torch.linalg.matrix_norm,
    torch.linalg.cond,
)  # fmt: skip
def of_matrices(call: Call, input: Value, *args: Any, **kwargs: Any) -> Any:
    """A function of each matrix, which may not be finite; the exponential of zeros is the identity."""
    call.freeze(input.axes[-2:], _WHOLE)
    at_zero = call.name in ("matrix_exp", "linalg_matrix_exp")
    flow = fl.Pointwise((call.operand(input, drop=[-2, -1]),), total=False, total_at_zero=at_zero)
    if isinstance(call.meta, torch.Tensor):
        return call.output(_behind(call, input.axes[:-2], call.meta.shape), flow)
    return tuple(
        call.output(_behind(call, input.axes[:-2], part.shape), flow, index=i) for i, part in enumerate(call.meta)
    )


@rule(torch.linalg.solve)
def solved(call: Call, A: Value, B: Value, *, left: bool = True) -> Value:  # torch's own names
    """The solutions of A X = B, or X A = B: linear in B, each of its columns, or rows, alone."""
    vectors = len(B.axes) == 1 or [t.size for t in B.axes] == [t.size for t in A.axes[:-1]]
    return _solutions(call, A, B, -1 if vectors or not left else -2, vectors)


@rule(torch.linalg.solve_triangular)
def solved_by_triangle(
    call: Call, A: Value, B: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:  # fmt: skip
    """The same for a triangle A."""
    return _solutions(call, A, B, -2 if left else -1)


@rule(torch.cholesky_solve, "cholesky_solve")
def solved_by_factor(call: Call, input: Value, input2: Value, upper: bool = False) -> Value:
    """The same for the matrix of which a triangle is the factor."""
    return _solutions(call, input2, input, -2)


def _solutions(call: Call, matrices: Value, given: Value, along: int, vectors: bool = False) -> Value:
    """What is given, multiplied by the inverses of matrices along one of its last axes."""
    call.freeze((*matrices.axes[-2:], given.axes[along]), _WHOLE)
    inverse = fl.Pointwise((call.operand(matrices, drop=[-2, -1]),), total=False)
    front = len(given.axes) - (1 if vectors else 2)
    batches = [axes for axes in (matrices.axes[:-2], given.axes[:front]) if axes]
    batch = align(call, batches) if batches else ()
    return call.output((*batch, *given.axes[front:]), fl.Mul((call.operand(given, drop=[along]), inverse)))


@rule(torch.diagonal, "diagonal")
def diagonal(call: Call, input: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """The entries of two axes at the same place of both, on a new last axis."""
    along = {call.axis(input, dim1), call.axis(input, dim2)}
    call.freeze((input.axes[i] for i in along), _DIAGONAL)
    new = call.fixed(meta_shape(call.meta)[-1], _DIAGONAL)
    kept = (term for i, term in enumerate(input.axes) if i not in along)
    return call.output((*kept, new), fl.Same(call.operand(input, drop=along)))


@rule(torch.linalg.diagonal)
def last_diagonal(call: Call, A: Value, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Value:
    """The same, of the last two axes."""
    return diagonal(call, A, offset, dim1, dim2)


@rule(torch.diag_embed, "diag_embed")
def on_diagonal(call: Call, input: Value, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Value:
    """The last axis on the diagonal of two new ones, between zeros."""
    call.freeze(input.axes[-1:], _DIAGONAL)
    sizes = meta_shape(call.meta)
    new = {dim % len(sizes) for dim in (dim1, dim2)}
    kept = iter(input.axes[:-1])
    axes = (call.fixed(size, _DIAGONAL) if i in new else next(kept) for i, size in enumerate(sizes))
    return call.output(axes, fl.Same(call.operand(input, drop=[-1])))


@rule(torch.diag, "diag", torch.diagflat, "diagflat", torch.trace, "trace")
def whole_diagonal(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """A vector on a diagonal, the diagonal of a matrix, or its sum."""
    call.freeze(input.axes, _DIAGONAL)
    return call.output(call.fixed(size, _DIAGONAL) for size in meta_shape(call.meta))


def _behind(call: Call, front: Sequence[Term], shape: Sequence[int]) -> list[Term]:
    """Axes in front of those that are new."""
    return [*front, *(call.fixed(size, _WHOLE) for size in shape[len(front) :])]
