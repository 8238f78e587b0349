"""torch.einsum."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule

_SPARE = "0123456789"  # letters for the axes behind an ellipsis


@rule(torch.einsum)
def einsum(call: Call, equation: str, *operands: Any) -> Value:
    """Letters of two operands that the output lacks are contracted; those of one alone are summed over."""
    values = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    inputs, output = _letters(equation, values)
    axes = _axes(call, inputs, values)
    for letter in dict.fromkeys("".join(inputs)):
        holders = [(value, letters.index(letter)) for letters, value in zip(inputs, values, strict=True)
                   if letter in letters]  # fmt: skip
        if any(letters.count(letter) > 1 for letters in inputs):
            call.freeze([axes[letter]], "a diagonal over it")
        elif letter in output:
            continue
        elif len(holders) > 2:
            call.freeze([axes[letter]], "a sum over a product of three and more operands")
        elif len(holders) == 2:
            (left, i), (right, j) = holders
            call.contract(left, i, right, j)
        else:
            call.sum_over(*holders[0])
    factors = tuple(
        call.operand(value, drop=[i for i, letter in enumerate(letters) if letter not in output])
        for letters, value in zip(inputs, values, strict=True)
    )
    return call.output((axes[letter] for letter in output), fl.Mul(factors))


def _axes(call: Call, inputs: list[str], values: list[Value]) -> dict[str, Term]:
    """The axis of each letter; those behind an ellipsis broadcast."""
    axes: dict[str, Term] = {}
    for letters, value in zip(inputs, values, strict=True):
        for letter, term in zip(letters, value.axes, strict=True):
            present = axes.setdefault(letter, term)
            if present.size == term.size:
                call.same(present, term)
                continue
            small, large = sorted((present, term), key=lambda axis: axis.size)
            call.freeze([small], "an axis of size 1 that is broadcast")
            axes[letter] = large
    return axes


def _letters(equation: str, values: list[Any]) -> tuple[list[str], str]:
    """The letters of each operand and of the output: blanks removed, ellipses and a left-out output written out."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if not arrow:
        count = Counter(left.replace(",", "").replace(".", ""))
        output = "..." * ("..." in left) + "".join(sorted(letter for letter, n in count.items() if n == 1))
    hidden = [len(value.axes) - len(letters.replace("...", "")) for letters, value in zip(inputs, values, strict=True)]
    most = max((n for n, letters in zip(hidden, inputs, strict=True) if "..." in letters), default=0)
    written = [letters.replace("...", _SPARE[most - n : most]) for letters, n in zip(inputs, hidden, strict=True)]
    return written, output.replace("...", _SPARE[:most])
