"""What the child finds, written line by line as it is found, so that nothing is lost when it is stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO


class Journal:
    """Writes events as JSON lines.

    Args:
        stream: text; flushed after each line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._label = ""
        self._start = time.perf_counter()

    def begin(self, label: str) -> None:
        """Say what is done next; where the child is stopped, this is what it was doing."""
        self._label, self._start = label, time.perf_counter()
        self.note("begin", label=label)

    def end(self, event: str, **found: Any) -> None:
        """Say what came out of what was begun last; the seconds it took are added."""
        self.note(event, label=self._label, seconds=time.perf_counter() - self._start, **found)

    def note(self, event: str, **found: Any) -> None:
        """Write one event as it is."""
        self._stream.write(json.dumps({"event": event, **found}) + "\n")
        self._stream.flush()


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file, without a last line that was torn when the writer was killed."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [json.loads(line) for line in lines[:-1]]
