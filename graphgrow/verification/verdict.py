"""What was compared, how strictly, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        mode: "eval" or "train", or the name of a further mode.
        what: what was compared ("outputs, float64", "nodes, float64", "buffers after the step", ...).
        max_error: the largest absolute error, at the element nearest to (or furthest beyond) its bound.
        bound: the bound at that element.
        where: the node, output or buffer of that element.
        passed: whether every element is within its bound.
        element: the position of that element there.
        count: how many tensors were compared.
        limit: how the bound came about, in words; empty where tensors that fail are counted, not errors measured.
    """

    mode: str
    what: str
    max_error: float
    bound: float
    where: str
    passed: bool
    element: tuple[int, ...] = ()
    count: int = 0
    limit: str = ""

    def __str__(self) -> str:
        return self.line() + (f"  ({self.limit})" if self.limit else "")

    def line(self, mode: int = 0, what: int = 0) -> str:
        """The check in words, its first columns that many characters wide."""
        sign = "ok  " if self.passed else "FAIL"
        return f"  {sign}  {self.mode:<{mode}}  {self.what:<{what}}  {self._outcome()}"

    def _outcome(self) -> str:
        place = self.where + (str(list(self.element)) if self.element else "")
        compared = f"{self.count:>4} compared, "
        if not self.limit:
            if self.passed:
                return compared + "none fails"
            return compared + f"{self.max_error:g} fail, first {place}" if self.count else f"fails at {place}"
        if self.max_error == 0:
            return compared + "no difference"
        sign = "<=" if self.passed else ">"
        return compared + f"error {self.max_error:.1e} {sign} {self.bound:.1e} at {place}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of `gg.verify`.

    Attributes:
        preserved: True where every check passed, False where one failed, None where nothing can be said.
        max_error: of the check nearest to its bound.
        bound: of that check, and how it was derived is said in `str(verdict)`.
        modes: the modes that were compared.
        checks: all comparisons.
        first_difference: the first node at which the two graphs part, where one was found.
        reason: one sentence on why the verdict is not a plain yes; empty where it is.
        notes: what a reader should know about how it was compared.
    """

    preserved: bool | None
    max_error: float
    bound: float
    modes: tuple[str, ...]
    checks: tuple[Check, ...]
    first_difference: str | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.preserved is True

    def __str__(self) -> str:
        head = {True: "preserved", False: "NOT preserved", None: "undetermined"}[self.preserved]
        modes = " and ".join(filter(None, (", ".join(self.modes[:-1]), *self.modes[-1:])))
        lines = [head + (f": {self.reason}" if self.reason else "") + f" ({modes or 'no mode'})"]
        mode = max((len(check.mode) for check in self.checks), default=0)
        what = max((len(check.what) for check in self.checks), default=0)
        lines += [check.line(mode, what) for check in self.checks]
        if self.first_difference:
            lines.append(f"  the graphs part at `{self.first_difference}`")
        return "\n".join([*lines, *self._limits(), *(f"  {note}" for note in self.notes)])

    def _limits(self) -> Iterator[str]:
        """How the bounds came about, a line for each way, with what it is for."""
        kinds: dict[str, dict[str, None]] = {}
        for check in self.checks:
            if check.max_error and check.limit:
                of = ", ".join(check.what.split(", ")[:2]) if check.mode in ("eval", "train") else check.mode
                kinds.setdefault(check.limit, {})[of] = None
        for limit, of_what in kinds.items():
            yield f"  bound: {limit} ({'; '.join(of_what)})"


def conclude(
    checks: list[Check], modes: tuple[str, ...], doubts: list[str], notes: list[str], part: str | None
) -> Verdict:
    """The verdict that follows from the checks; a doubt makes a yes undetermined, never a no a yes."""
    failed = [check for check in checks if not check.passed]
    worst = max(failed or checks, key=_nearness, default=None)
    preserved: bool | None = not failed and bool(checks)
    reason = ""
    if failed:
        reason = f"{len(failed)} of {len(checks)} checks failed"
    elif doubts or not checks:
        preserved, reason = None, "; ".join(doubts) or "nothing was compared"
    error, bound = (worst.max_error, worst.bound) if worst else (float("nan"), float("nan"))
    return Verdict(preserved, error, bound, modes, tuple(checks), part, reason, tuple(dict.fromkeys(notes)))


def _nearness(check: Check) -> float:
    """How near a check is to its bound; NaN counts as beyond all."""
    if check.max_error == 0:
        return 0.0
    ratio = check.max_error / check.bound if check.bound > 0 else float("inf")
    return ratio if ratio == ratio else float("inf")
