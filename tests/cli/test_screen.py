"""What shows while something takes long: a line on a terminal, and nothing in a file or a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from graphgrow.cli.screen import working


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_line_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with working("verifying"):
        pass
    assert ("verifying" in stream.getvalue()) is shown


def test_errors_go_through() -> None:
    with pytest.raises(KeyError), working("verifying"):
        raise KeyError
