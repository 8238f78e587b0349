"""How the axes of several operands meet when they broadcast."""

from __future__ import annotations

from collections.abc import Sequence

from graphgrow.ir.terms import Axes, Term
from graphgrow.ops.call import Call


def align(call: Call, shapes: Sequence[Axes]) -> Axes:
    """The axes of the broadcast result: aligned from the last, those of size 1 stretched.

    An axis of size 1 that is stretched stays at 1, and is frozen.
    """
    rank = max(len(axes) for axes in shapes)
    result: list[Term] = []
    for position in range(-rank, 0):
        terms = [axes[position] for axes in shapes if len(axes) >= -position]
        widest = max(terms, key=lambda term: term.size)
        for term in terms:
            if term is widest:
                continue
            if term.size == widest.size:
                call.same(term, widest)
            else:
                call.freeze([term], "an axis of size 1 that is broadcast")
        result.append(widest)
    return tuple(result)
