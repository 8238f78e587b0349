"""An end to what Dynamo records when the time is over, and not when it is done.

Dynamo goes through a forward line by line and unrolls its loops, which may take minutes before it comes to what it
refuses. It is one call, but it tells its log of each line: what listens there can end it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from traceback import FrameSummary

import torch
from torch._guards import TracingContext

from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.frames import is_users
from graphgrow.errors import TimeBudgetError

_LINES = ("torch._dynamo.symbolic_convert", "trace_source")  # a line is written when somebody reads it alone


@contextmanager
def ended_by(clock: Clock) -> Iterator[None]:
    """Within, a recording by Dynamo ends at its next line once the time is over.

    Dynamo makes errors of its own of those that it meets, or writes more into them, and may go on where it only tried
    something: what is raised in the end is the clock's.

    Raises:
        TimeBudgetError: if the time is over.
    """
    if not clock.runs:
        yield
        return
    log = torch._logging.getArtifactLogger(*_LINES)  # type: ignore[attr-defined]  # exported without saying so
    level, wanted = log.level, log.isEnabledFor(logging.DEBUG)
    over: list[str] = []

    def heard(record: logging.LogRecord) -> bool:
        try:
            clock.progress(lambda: users_line(TracingContext.extract_stack()) or "no line of the model's yet")
        except TimeBudgetError as error:
            over.append(str(error))
            raise
        return wanted

    log.addFilter(heard)
    log.setLevel(logging.DEBUG)
    try:
        yield
    except Exception:
        if not over:
            raise
    finally:
        log.setLevel(level)
        log.removeFilter(heard)
    if over:
        raise TimeBudgetError(over[0])


def users_line(frames: Iterable[FrameSummary]) -> str:
    """Where in the user's own code a call stands, with the line; empty if nowhere there."""
    own = [frame for frame in frames if is_users(frame.filename)]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
