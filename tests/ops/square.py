"""What each of our own rules is expected to admit, and the commuting square of all that it admits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from graphgrow.rulecheck.probe import Draw
from graphgrow.rulecheck.square import Square, rendered


@dataclass(frozen=True)
class Case:
    """One operator and what its rule is expected to admit.

    Attributes:
        targets: the registered targets of which the probe holds at least one; the first that is found is checked.
        build: makes a probe of drawn sizes.
        admits: for each axis that may grow, named after the first parameter that has it (x, then
            the other bare ones by name, then the module's own) (`x.1`, and `x.1:0` for
            the first factor or part), what becomes of each fill of that parameter: `free>zero|free` says that
            free units are admitted and come out as zero or free, by what the other operands hold; `free>-` that
            the axis does not reach the output. A fill that is not listed must be declined.
        label: for the test's name.
    """

    targets: tuple[object, ...]
    build: Callable[[Draw], nn.Module]
    admits: Mapping[str, str]
    label: str = ""

    def __str__(self) -> str:
        target = self.targets[0]
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        kind = "module" if isinstance(target, type) else "method" if isinstance(target, str) else "function"
        return f"{name}-{kind}{'-' + self.label if self.label else ''}"

    def check(self, draw: Draw) -> None:
        """Compare what is admitted with the table, and everything admitted with the operator itself."""
        torch.manual_seed(draw(0, 10**6))
        square = Square.of(self.build(draw), self.targets)
        spaces = square.spaces()
        assert set(spaces) == set(self.admits), f"growable axes {sorted(spaces)}: {square.frozen()}"
        tables = square.check_all(draw)
        wanted = {name: _parse(text) for name, text in self.admits.items()}
        assert tables == wanted, f"the rule admits { {n: rendered(t) for n, t in tables.items() if t != wanted[n]} }"


def _parse(text: str) -> dict[str, set[str]]:
    return {fill: set(results.split("|")) for fill, results in (item.split(">") for item in text.split())}
