"""A copy of the tree in which one mistake after the other is made, and the tests that should notice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.mutation.listed import Mutant

KEPT = (
    "graphgrow",
    "tests",
    "tools",
    "docs",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "constraints.txt",
    "Makefile",
)
INNER = ("passes", "models")  # folders that are imported as parts of graphgrow


def make_copy(root: Path, folder: Path) -> None:
    """The sources with every package where it is imported from, and the tests."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (*KEPT, *INNER):
        source = root / name
        for target in [folder / name, *[folder / "graphgrow" / name] * (name in INNER)]:
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignored)
            elif source.exists():
                shutil.copy(source, target)


def place(mutant: Mutant) -> Path:
    """Where a source lies in the copy."""
    path = Path(mutant.path)
    return Path("graphgrow") / path if path.parts[0] in INNER else path


@contextlib.contextmanager
def made(mutant: Mutant, folder: Path) -> Iterator[None]:
    """The mistake, for as long as the context lasts.

    Raises:
        ValueError: if the text does not stand there once: the source has changed since.
    """
    path = folder / place(mutant)
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.path} holds {mutant.old!r} {text.count(mutant.old)} times, wanted once")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def outcome(folder: Path, tests: tuple[str, ...], timeout_s: float, log: Path) -> str:
    """What the tests say: "passed", "failed", or "timed out"; they run in a fork, torch being loaded already."""

    def work() -> int:
        os.chdir(folder)
        sys.path[:] = [str(folder), *(entry for entry in sys.path if entry not in ("", str(Path.cwd())))]
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.partition(".")[0] in ("graphgrow", "tests", "tools")]:
            del sys.modules[name]
        os.environ["HYPOTHESIS_PROFILE"] = "unshrunk"
        import pytest

        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))

    child = _fork(work, log)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {0: "passed", 5: "no tests"}.get(code, "failed")
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def _fork(work: Callable[[], int], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            code = work()
            sys.stdout.flush()
    finally:
        os._exit(code)
