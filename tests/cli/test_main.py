"""The program as such: exit codes, one message for an error, a quick start, a closed pipe, an interruption."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from graphgrow import __version__
from graphgrow.errors import GraphGrowError
from tests.cli.commands import call

PROGRAM = [sys.executable, "-m", "graphgrow.cli.main"]
COMMANDS = ("inspect", "mutations", "grow", "scale", "verify", "export", "bench", "demo")


def test_help_names_every_command_and_each_has_an_example() -> None:
    shown = call("--help").stdout
    for command in COMMANDS:
        assert command in shown
        assert f"$ graphgrow {command} " in call(command, "--help").stdout


def test_help_names_no_type_of_a_value_where_a_flag_takes_none() -> None:
    for arguments in (["--help"], ["grow", "--help"]):
        assert "<bool>" not in call(*arguments).stdout


def test_no_command_shows_the_help() -> None:
    assert "Usage" in call(code=2).output


def test_version() -> None:
    assert call("--version").stdout == f"graphgrow {__version__}\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    assert "No such command" in call("shrink", code=2).stderr


def test_help_does_not_import_torch() -> None:
    script = "import sys, graphgrow.cli.main; print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_real_process_refuses_with_one_message_and_exit_code_1() -> None:
    done = subprocess.run([*PROGRAM, "inspect", "graphgrow:nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no graphgrow:nothing")
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_is_no_error_to_talk_about() -> None:
    done = subprocess.run(
        f"{sys.executable} -m graphgrow.cli.main inspect graphgrow:vit --text | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_debug_shows_the_traceback() -> None:
    arguments = ["--debug", "inspect", "graphgrow:nothing"]
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ModelError" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GraphGrowError("two\nlines"), 1, "error: two\nlines"),
        (KeyError("x"), 1, "unexpected error: KeyError: 'x'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_messages(error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("graphgrow.store.tracing.trace", fail)
    result = call("inspect", "graphgrow:mlp", code=code)
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_signal_of_an_interruption_gives_130() -> None:
    script = "import os, signal, graphgrow.demo as d, graphgrow.cli.main as m\n"
    script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which background jobs inherit as ignored
    script += f"d.run_demo = lambda *a, **k: os.kill(os.getpid(), {int(signal.SIGINT)})\n"
    script += "import sys; sys.argv = ['graphgrow', 'demo']; m.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted"
