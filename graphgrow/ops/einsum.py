"""torch.einsum with one or two operands."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.registry import rule


@rule(torch.einsum)
def einsum(call: Call, equation: str, *operands: Any) -> Value:
    """Letters of both operands that the output lacks are contracted; those of one alone are summed over."""
    values = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    inputs, output = _letters(equation, values)
    axes: dict[str, Term] = {}
    for letters, value in zip(inputs, values, strict=True):
        for letter, term in zip(letters, value.axes, strict=True):
            if letter in axes:
                call.same(axes[letter], term)
            axes.setdefault(letter, term)
    for letter in dict.fromkeys("".join(inputs)):
        if letter in output:
            continue
        holders = [
            (value, letters.index(letter)) for letters, value in zip(inputs, values, strict=True) if letter in letters
        ]
        if len(holders) == 2:
            (left, i), (right, j) = holders
            call.contract(left, i, right, j)
        else:
            call.sum_over(*holders[0])
    factors = tuple(
        call.operand(value, drop=[i for i, letter in enumerate(letters) if letter not in output])
        for letters, value in zip(inputs, values, strict=True)
    )
    return call.output((axes[letter] for letter in output), fl.Mul(factors))


def _letters(equation: str, values: list[Value]) -> tuple[list[str], str]:
    """The letters of each operand and of the output, blanks removed."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if "." in equation or not arrow:
        raise RuleDeclined("an equation with an ellipsis or without an output")
    if not 1 <= len(inputs) <= 2 or any(len(set(letters)) < len(letters) for letters in inputs):
        raise RuleDeclined("an equation of three operands, or with a diagonal")
    if [len(letters) for letters in inputs] != [len(value.axes) for value in values]:
        raise RuleDeclined("an equation that does not fit its operands")
    return inputs, output
