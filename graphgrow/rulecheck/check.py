"""A rule held against its operator: what it admits wrongly, by the smallest case, and what it could admit."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.errors import RuleError
from graphgrow.rewrite.draws import begin_random
from graphgrow.rulecheck.lifted import Mismatch
from graphgrow.rulecheck.missing import Hints, agreed, missing
from graphgrow.rulecheck.probe import Draw, Probe
from graphgrow.rulecheck.square import Square, rendered

Example = Callable[[Draw], Sequence[Any]]
NAMES = "xyzuvw"
HINTED = 3  # cases in which further admissions are tried
SHRINKS = 60  # smaller cases that are tried


@dataclass(frozen=True)
class Failure:
    """A case in which the operator does not do what its rule promises.

    Attributes:
        inputs: the shapes of the operator's inputs, as text.
        text: the axis, the fills, and by how much it is off.
    """

    inputs: str
    text: str


@dataclass(frozen=True)
class RuleReport:
    """What was found of a rule.

    Attributes:
        operator: its name.
        cases: how many were tried.
        admits: by axis of the inputs (`x.1`: the second axis of the first tensor; `x.1:0` a factor of it), what becomes
            of each fill: `zero>free|zero` says that new units of zero are admitted and come out as free or as zero.
        frozen: by axis, why the rule lets it not grow.
        failure: the smallest case that fails; None where none does.
        missing: what the operator did in every case that was tried, and its rule does not say: hints.
    """

    operator: str
    cases: int
    admits: Mapping[str, str]
    frozen: Mapping[str, str]
    failure: Failure | None
    missing: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether everything that the rule admits held."""
        return self.failure is None

    def __str__(self) -> str:
        lines = [f"{self.operator}: {f'right in {self.cases} cases' if self.right else f'WRONG in case {self.cases}'}"]
        if self.failure is not None:
            lines += [f"  smallest case that fails: inputs {self.failure.inputs}", f"    {self.failure.text}"]
        lines += [f"  admits {axis}: {table or 'nothing'}" for axis, table in self.admits.items()]
        lines += [f"  frozen {axis}: {why}" for axis, why in self.frozen.items()]
        return "\n".join([*lines, *(f"  could admit {hint}" for hint in self.missing)])


def check_rule(example: Example, cases: int = 20, seed: int = 0) -> RuleReport:
    """Hold an axis rule against its operator, by the commuting square op(E x) = E op(x) in float64.

    Every way in which the rule says that new units can stand in the operator's inputs and parameters is carried out,
    and the operator must then hold the old values at the old places and, at the new ones, what the rule says.

    Args:
        example: makes an operator and its inputs, of sizes that it draws: `draw(2, 5)` is a whole number from 2 to 5.
            It returns a module, a function, an operator of torch.library or the name of a tensor method, and then the
            inputs in order: tensors, also in lists, of which those of floating point may grow, and plain values.
            Inputs by name go into a `functools.partial` of the operator.
        cases: how many to try.
        seed: of the sizes and of the numbers.

    Raises:
        RuleError: if the operator has no rule or is looked into, or no such function is given.
        CaptureError: if it cannot be captured: it must work on tensors without data.
    """
    made: Any = example
    if isinstance(made, nn.Module) or not callable(made) or type(cases) is not int or cases < 1:
        given = f"{type(example).__name__} and {cases=!r:.60}"
        raise RuleError(
            "gg.check_rule wants a function that draws sizes and makes an operator with its inputs (def example(draw): "
            f"c = draw(1, 5); return nn.Linear(c, 3), torch.randn(2, c)), and a number of cases, not {given}"
        )
    run = _Run(example, seed)
    failure: Failure | None = None
    for number in range(cases):
        draws = Draws(random.Random(f"{seed}/{number}"))
        failure = run.case(draws, hints=number < HINTED)
        if failure is not None:
            failure = run.smaller(draws.made, failure)
            break
    admits = {axis: rendered(table) for axis, table in run.tables.items()}
    frozen = {axis: why for axis, why in run.frozen.items() if axis not in admits}
    return RuleReport(run.operator, number + 1, admits, frozen, failure, tuple(agreed(run.hints)))


class Draws:
    """Whole numbers drawn at random, after some that are given.

    Attributes:
        made: what was drawn.
    """

    def __init__(self, generator: random.Random | None = None, given: Sequence[int] = ()) -> None:
        self.made: list[int] = []
        self.lows: list[int] = []
        self._generator, self._given = generator, given

    def __call__(self, low: int, high: int) -> int:
        """A number between both, both included: a given one, else a random one, or the lowest."""
        place = len(self.made)
        if place < len(self._given):
            value = min(max(self._given[place], low), high)
        else:
            value = low if self._generator is None else self._generator.randint(low, high)
        self.made.append(value)
        self.lows.append(low)
        return value


@dataclass
class _Run:
    example: Example
    seed: int
    operator: str = ""
    tables: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    frozen: dict[str, str] = field(default_factory=dict)
    hints: list[Hints] = field(default_factory=list)

    def case(self, draws: Draws, hints: bool = False) -> Failure | None:
        """One case; takes down what is admitted."""
        with torch.random.fork_rng(devices=[]):
            begin_random(self.seed)
            operator, options, arguments = _given(self.example(draws))
            probe = _probe(operator, options, arguments)
        square = Square.of(probe, [type(operator) if isinstance(operator, nn.Module) else operator])
        self.operator = _name(operator)
        self.frozen.update(square.frozen())
        try:
            for axis, table in square.check_all(draws).items():
                known = self.tables.setdefault(axis, {})
                for fill, results in table.items():
                    known.setdefault(fill, set()).update(results)
        except Mismatch as mismatch:
            return Failure(_shapes(arguments), str(mismatch))
        if hints:
            self.hints.append(missing(square, draws))
        return None

    def smaller(self, drawn: list[int], failure: Failure) -> Failure:
        """The failure of the smallest case that was found: each number as low as it goes, one after the other."""
        left = SHRINKS
        place = 0
        while place < len(drawn) and left:
            draws = Draws(given=drawn)
            self.case(draws)
            low, high = draws.lows[place] if place < len(draws.lows) else drawn[place], drawn[place]
            for value in dict.fromkeys((low, (low + high) // 2, high - 1)):
                if not low <= value < high or not left:
                    continue
                left -= 1
                found = self.case(shorter := Draws(given=[*drawn[:place], value, *drawn[place + 1 :]]))
                if found is not None:
                    drawn, failure = shorter.made, found
                    break
            place += 1
        return failure


def _given(example: Any) -> tuple[Any, dict[str, Any], list[Any]]:
    """Operator, inputs by name, inputs in order."""
    if not isinstance(example, (tuple, list)) or not example:
        raise RuleError(
            "an example is a tuple of an operator and its inputs: `lambda draw: (Scale(3), torch.randn(2, 3))`"
        )
    operator, *arguments = example
    options: dict[str, Any] = {}
    if isinstance(operator, functools.partial):
        arguments, options, operator = [*operator.args, *arguments], dict(operator.keywords), operator.func
    if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(arguments)):
        raise RuleError("an example's inputs hold no tensor")
    return operator, options, arguments


def _probe(operator: Any, options: dict[str, Any], arguments: list[Any]) -> Probe:
    """The operator between bare parameters and sums; its own parameters are stirred, since zeros hide mistakes."""
    tree, structure = pytree.tree_flatten(arguments)
    names: dict[int, str] = {}
    for place, leaf in enumerate(tree):
        if isinstance(leaf, torch.Tensor):
            names[place] = NAMES[len(names)] if len(names) < len(NAMES) else f"x{len(names)}"
    sources = {n: tree[place].detach().double() for place, n in names.items() if tree[place].is_floating_point()}
    buffers = {n: tree[place] for place, n in names.items() if not tree[place].is_floating_point()}

    def run(m: Any) -> Any:
        leaves = [getattr(m, names[place]) if place in names else leaf for place, leaf in enumerate(tree)]
        first, *rest = pytree.tree_unflatten(leaves, structure)
        if isinstance(operator, str):
            return getattr(first, operator)(*rest, **options)
        return (m.op if isinstance(operator, nn.Module) else operator)(first, *rest, **options)

    modules = {"op": _stirred(operator)} if isinstance(operator, nn.Module) else {}
    return Probe(run, sources, modules, buffers)


@torch.no_grad()
def _stirred(module: nn.Module) -> nn.Module:
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.add_(0.1 + 0.5 * torch.rand_like(tensor))  # what was positive stays so
    return module


def _name(operator: Any) -> str:
    if isinstance(operator, nn.Module):
        return type(operator).__name__
    return operator if isinstance(operator, str) else str(getattr(operator, "__name__", operator))


def _shapes(arguments: list[Any]) -> str:
    shown = [f"{tuple(a.shape)}" if isinstance(a, torch.Tensor) else repr(a) for a in pytree.tree_leaves(arguments)]
    return ", ".join(shown)
