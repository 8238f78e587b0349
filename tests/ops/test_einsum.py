"""torch.einsum of one, two and three operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
PRODUCT = "free>free|zero zero>zero mean>free|zero copy>copy|share share>share"
READ = "free>- zero>- mean>- copy>- share>-"
SUMMED = "zero>- share>-"
MANY = "free>free|zero zero>zero mean>free|zero copy>copy|share share>share"


def _einsum(equation: str, letters: str, others: str = "", packed: bool = False) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        size = {letter: draw(2, 3) for letter in dict.fromkeys(letters + others)}
        sources = {"x": normal_tensor(draw, *(size[letter] for letter in letters))}
        if others:
            sources["y"] = normal_tensor(draw, *(size[letter] for letter in others))

        def run(m: Any) -> Any:
            operands = [m.x, m.y] if others else [m.x]
            return torch.einsum(equation, operands) if packed else torch.einsum(equation, *operands)

        return Probe(run, sources)

    return build


def _three(equation: str) -> Callable[[Draw], nn.Module]:
    """Three operands, whose letters are those of the equation."""

    def build(draw: Draw) -> nn.Module:
        letters = equation.partition("->")[0].split(",")
        size = {letter: draw(2, 3) for letter in dict.fromkeys("".join(letters))}
        shapes = [[size[letter] for letter in axes] for axes in letters]
        sources = {name: normal_tensor(draw, *shape) for name, shape in zip("xyz", shapes, strict=True)}
        return Probe(lambda m: torch.einsum(equation, m.x, m.y, m.z), sources)

    return build


def case(equation: str, letters: str, others: str = "", label: str = "", packed: bool = False, **tables: str) -> Case:
    """Tables by operand and axis, as in x1."""
    admits = {f"{name[0]}.{name[1:]}": table for name, table in tables.items()}
    return Case((torch.einsum,), _einsum(equation, letters, others, packed), admits, label)


CASES = [
    case("bnd,bmd->bnm", "bnd", "bmd", "scores", x0=PRODUCT, x1=LINEAR, x2=READ, y1=LINEAR),
    case("ij, jk -> ik", "ij", "jk", "matmul", x0=LINEAR, x1=READ, y1=LINEAR),
    case("ij,jk->ik", "ij", "jk", "packed", packed=True, x0=LINEAR, x1=READ, y1=LINEAR),
    case("ab->ba", "ab", "", "transpose", x0=LINEAR, x1=LINEAR),
    case("ab->b", "ab", "", "sum", x0=SUMMED, x1=LINEAR),
    case("abc,cd->abd", "abc", "cd", "linear", x0=LINEAR, x1=LINEAR, x2=READ, y1=LINEAR),
    case("ab,bc->b", "ab", "bc", "gate", x0=SUMMED, x1=PRODUCT, y1=SUMMED),
    case("ab,cd->abcd", "ab", "cd", "outer", x0=LINEAR, x1=LINEAR, y0=LINEAR, y1=LINEAR),
    case("...a->a...", "ba", "", "ellipsis", x0=LINEAR, x1=LINEAR),
    case("...ij,...jk->...ik", "bcij", "cjk", "ellipses", x0=LINEAR, x1=PRODUCT, x2=LINEAR, x3=READ, y2=LINEAR),
    case("ij,jk", "ij", "jk", "no-output", x0=LINEAR, x1=READ, y1=LINEAR),
    case("...b,b", "ab", "b", "ellipsis-without-output", x0=LINEAR, x1=READ),
    case("aab->ab", "aab", "", "diagonal", x2=LINEAR),
    Case((torch.einsum,), _three("bi,ij,jk->bk"), {"x.0": LINEAR, "x.1": READ, "y.1": READ, "z.1": LINEAR}, "chain"),
    Case((torch.einsum,), _three("bi,bj,oij->bo"),
         {"x.0": PRODUCT, "x.1": READ, "y.1": READ, "z.0": LINEAR}, "bilinear"),
    Case((torch.einsum,), _three("bi,bi,bi->b"), {"x.0": MANY}, "one-for-all"),
]  # fmt: skip


test_square = squares(CASES, 4)
