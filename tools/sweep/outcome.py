"""How a trial came out, and what is said of it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import graphgrow as gg

# What a defect raises: it is recorded with its place, and the sweep goes on with the next trial.
DEFECTS = (
    gg.GraphGrowError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

_NO_MEMORY = re.compile(r"(can't|cannot) allocate memory|not enough memory|bad_?alloc|out of memory", re.IGNORECASE)
_LONGEST = 400


@dataclass(frozen=True)
class Outcome:
    """How a trial came out.

    Attributes:
        kind: "preserved", "same" (bits) or "parity" (ONNX) where all is well; "undetermined"; "wrong"; "declined"
            where apply says no to what was offered; "refused" where ONNX refuses the base model as well; "memory";
            "error".
        reason: why it is not well.
        ratio: the largest error in multiples of its bound, where it was measured and is within the bound.
    """

    kind: str
    reason: str = ""
    ratio: float | None = None


def attempt(trial: Callable[[], Outcome]) -> Outcome:
    """Run a trial; what it raises becomes its outcome."""
    try:
        return trial()
    except gg.Declined as error:
        return Outcome("declined", f"offered but declined: {one_line(str(error))}")
    except DEFECTS as error:
        return raised(error)


def raised(error: Exception) -> Outcome:
    """The outcome of a trial that raised."""
    words = one_line(str(error))
    if isinstance(error, MemoryError) or _NO_MEMORY.search(words):
        return Outcome("memory", f"out of memory: {words}")
    place = "" if isinstance(error, gg.GraphGrowError) else _place(error)
    return Outcome("error", f"{type(error).__name__}: {words}{place}")


def compared(before: gg.Graph, after: gg.Graph, batch_sizes: tuple[int, ...], seed: int) -> Outcome:
    """The outcome of `gg.verify`."""
    verdict = gg.verify(before, after, seed=seed, batch_sizes=batch_sizes)
    if verdict.preserved:
        ratios = [check.max_error / check.bound for check in verdict.checks if check.bound > 0]
        return Outcome("preserved", "", max(ratios, default=0.0))
    failed = next((one_line(str(check)) for check in verdict.checks if not check.passed), "")
    parts = f"; the graphs part at `{verdict.first_difference}`" if verdict.first_difference else ""
    words = one_line(f"{verdict.reason}; {failed}{parts}" if failed else verdict.reason)
    return Outcome("undetermined" if verdict.preserved is None else "wrong", words)


def one_line(text: str) -> str:
    """A text in one line, cut where it is long, without the places of this machine's packages."""
    line = re.sub(r"/\S*/site-packages/", "", " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
