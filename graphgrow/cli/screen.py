"""What the commands write: text and tables for people, JSON for machines, complaints on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDTH_OF_FILES = 120
"""Columns where the output is no terminal and COLUMNS does not say otherwise."""


def console(to_error: bool = False) -> Console:
    """A console on standard output, or standard error."""
    from rich.console import Console

    stream = sys.stderr if to_error else sys.stdout
    narrow = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=to_error, highlight=False, width=None if narrow else _WIDTH_OF_FILES)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """A line on standard error, with the time that has passed, while something takes long; none without a terminal."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = console(to_error=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", style="dim"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        progress.add_task(text, total=None)
        yield


def show(*parts: RenderableType) -> None:
    """Print tables and marked-up text, a line each."""
    screen = console()
    for part in parts:
        screen.print(part, soft_wrap=isinstance(part, str))


def show_text(text: str) -> None:
    """Print text as it is: no markup, no line breaks added."""
    console().print(text, markup=False, soft_wrap=True)
    sys.stdout.flush()


def show_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
    sys.stdout.flush()  # here, not at the interpreter's end, so that a closed pipe is noticed


def complain(kind: str, text: str) -> None:
    """Print one message on standard error."""
    from rich.text import Text

    colon = ": " if text else ""
    console(to_error=True).print(Text.assemble((kind + colon, "bold red"), text), soft_wrap=True)
