"""Faults while a graph is saved, and damaged files when it is loaded.

    python tools/faults.py --mutated 10000 --random-kills 500
    python tools/faults.py --flips

A save is killed with SIGKILL at each of its system calls and at random times, and each of these calls fails with each
errno in turn: what is loaded afterwards is the state before or the state after, bit for bit. Saved files are mutated
(bits flipped, cut off, pieces of other files spliced in, numbers and names exchanged): each is refused with a
`LedgerError`, or read as it was saved. With `--flips` instead, every single bit of a saved folder is flipped in turn.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

import graphgrow as gg

ERRNOS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE)


@contextmanager
def calls_watched(seen: Callable[[int, str], None]) -> Iterator[None]:
    """Call `seen(number, name)` in front of each system call by which files change; it may raise or kill."""
    count = 0

    def hooked(name: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            seen(count, name)
            return original(*args, **kwargs)

        return call

    class Watched:
        """A file whose writes are watched."""

        def __init__(self, file: Any) -> None:
            self.write, self.flush, self.fileno = hooked("write", file.write), file.flush, file.fileno
            self._file = file

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

    places: list[tuple[Any, str]] = [
        (tempfile, "mkstemp"), (os, "fsync"), (os, "open"), (Path, "replace"), (Path, "unlink"),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name in places]
    opened = os.fdopen
    for owner, name, original in before:
        setattr(owner, name, hooked(name, original))
    setattr(os, "fdopen", lambda *args, **kwargs: Watched(opened(*args, **kwargs)))  # noqa: B010  # it is overloaded
    try:
        yield
    finally:
        os.fdopen = opened
        for owner, name, original in before:
            setattr(owner, name, original)


def in_child(work: Callable[[], object]) -> int:
    """Fork, work in the child, and return its process id; the child ends without cleaning up."""
    child = os.fork()
    if child:
        return child
    try:  # pragma: no cover - the child's coverage dies with it
        work()
        os._exit(0)
    finally:
        os._exit(1)


def killed_save(graph: gg.Graph, folder: Path, at: int) -> bool:
    """Save in a process that is killed in front of its call number `at`; returns whether it was."""

    def work() -> None:
        with calls_watched(lambda number, _: os.kill(os.getpid(), signal.SIGKILL) if number == at else None):
            gg.save(graph, folder)

    return os.WIFSIGNALED(os.waitpid(in_child(work), 0)[1])


def failing_save(graph: gg.Graph, folder: Path, at: int, number: int) -> str | None:
    """Save while the call number `at` fails with an errno; what the error said, None where the save went through.

    Raises:
        OSError: if the failure comes out as it was, without its file and remedy.
    """

    def fail(count: int, _: str) -> None:
        if count == at:
            raise OSError(number, os.strerror(number))

    try:
        with calls_watched(fail):
            gg.save(graph, folder)
    except gg.LedgerError as error:
        return str(error)
    return None


def calls_of_a_save(graph: gg.Graph, folder: Path) -> list[str]:
    """The names of the calls of one save, in order."""
    names: list[str] = []
    with calls_watched(lambda _, name: names.append(name)):
        gg.save(graph, folder)
    return names


def state(folder: Path, model: nn.Module | None = None) -> tuple[str, str, bytes]:
    """What a folder holds: the ledger, the inputs, and the bits of all tensors."""
    graph = gg.load(folder, model)
    bits = b"".join(t.detach().numpy().tobytes() for t in graph.module.state_dict().values())
    return str(graph.ledger), str(graph.inputs), bits


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """The data with one to three damages: bits flipped, cut off, doubled, spliced, or words exchanged."""
    for _ in range(draw.randint(1, 3)):
        kind, place = draw.choice(["bit", "cut", "drop", "splice", "word", "digit"]), draw.randrange(len(data) or 1)
        if kind == "bit" and data:
            data = data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "drop":
            data = data[:place] + data[place + draw.randint(1, 64) :]
        elif kind == "splice":
            start = draw.randrange(len(other))
            data = data[:place] + other[start : start + draw.randint(1, 256)] + data[place:]
        elif kind == "digit":
            digits = [i for i, byte in enumerate(data[:4096]) if 48 <= byte <= 57]
            if digits:
                place = draw.choice(digits)
                data = data[:place] + bytes([48 + draw.randrange(10)]) + data[place + 1 :]
        else:
            old, new = draw.choice(WORDS), draw.choice(WORDS)
            data = data.replace(old, new, 1)
    return data


WORDS = (b"graphgrow", b"../../etc/passwd", b"null", b"true", b"[[[[", b'"', b"widen", b"split", b"1e999", b"weights-",
         b"sha256", b"__import__", b"\x00", b"float32", b"float64", b"-1")  # fmt: skip


def damaged_trial(saved: Path, folder: Path, expected: tuple[str, str, bytes], draw: random.Random) -> str:
    """Damage one file of a saved folder and load it: "refused", "read right", or in words what went wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    paths = sorted(folder.iterdir())
    path, other = draw.choice([(paths[0], paths[1]), (paths[1], paths[0]), (paths[0], paths[0])])
    before = path.read_bytes()
    path.write_bytes(mutated(before, other.read_bytes(), draw))
    try:
        found = state(folder)
    except gg.LedgerError:
        return "refused"
    except Exception as error:  # noqa: BLE001  # whatever else comes out is what is looked for
        return f"{type(error).__name__}: {error}"
    return "read right" if found == expected else "read wrong"


def flipped_bits(root: Path, every: int = 1) -> Counter[str]:
    """Flip single bits of all files of a small saved folder, `every` so many of them, and load it each time."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    saved = gg.save(gg.apply(gg.trace(base, torch.zeros(2, 2)), "widen(0, extra=1)"), root / "small")
    expected, outcomes = state(saved, base), Counter[str]()
    for path in sorted(saved.iterdir()):
        whole = path.read_bytes()
        for number in range(0, 8 * len(whole), every):
            place, bit = divmod(number, 8)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                outcomes["read right" if state(saved, base) == expected else "read wrong"] += 1
            except gg.LedgerError:
                outcomes["refused"] += 1
        path.write_bytes(whole)
    return outcomes


def pair() -> tuple[gg.Graph, gg.Graph]:
    """A base and what it grows into."""
    base = gg.trace("graphgrow:mlp")
    return base, gg.apply(base, ["split(layers.0)", "widen(layers.0, extra=3)"])


def main() -> None:
    """Run everything, and print a table of outcomes; the exit status is 1 where one is neither."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mutated", type=int, default=10_000)
    options.add_argument("--random-kills", type=int, default=500)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--flips", action="store_true")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    if chosen.flips:
        with tempfile.TemporaryDirectory() as name:
            flips = flipped_bits(Path(name))
        for outcome, count in sorted(flips.items()):
            print(f"{count:7,} a flipped bit: {outcome}")
        raise SystemExit(bool(flips["read wrong"]))
    draw, outcomes = random.Random(chosen.seed), Counter[str]()
    base, grown = pair()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder, saved, other = root / "folder", root / "saved", root / "other"
        gg.save(grown, saved)
        gg.save(base, other)
        expected = state(saved)
        known = {state(other), expected}
        names = calls_of_a_save(grown, root / "once")
        for at in range(1, len(names) + 1):
            _reset(folder, base)
            killed_save(grown, folder, at)
            outcomes[f"killed in front of a call: {'whole' if state(folder) in known else 'LOST'}"] += 1
            for number in ERRNOS:
                _reset(folder, base)
                failing_save(grown, folder, at, number)
                outcomes[f"a call fails: {'whole' if state(folder) in known else 'LOST'}"] += 1
        for _ in range(chosen.random_kills):
            _reset(folder, base)
            child = in_child(lambda: gg.save(grown, folder))
            time.sleep(draw.random() * 0.02)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            outcomes[f"killed at a random time: {'whole' if state(folder) in known else 'LOST'}"] += 1
        for _ in range(chosen.mutated):
            outcomes[f"a mutated file: {damaged_trial(saved, folder, expected, draw)}"] += 1
    print(f"{len(names)} calls in a save; seed {chosen.seed}")
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:7,} {outcome}")
    good = ("whole", "refused", "read right")
    raise SystemExit(any(not outcome.endswith(good) for outcome in outcomes))


def _reset(folder: Path, graph: gg.Graph) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    gg.save(graph, folder)


if __name__ == "__main__":
    main()
