"""Kill a training or a search with SIGKILL at random moments, resume it, and compare with one that was left alone.

    python tools/kill_training.py train --recipe digits-dnm --epochs 30
    python tools/kill_training.py search --recipe digits
    python tools/kill_training.py evolve --recipe digits --generations 2

The moments are drawn evenly over the time that the whole run took; one that ends before its moment is compared,
begun anew, and not counted. Ends with exit code 1 if the results differ: the weights, and of an evolution the weights
and the record of every candidate.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def start(command: str, arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """The run as a process of its own."""
    words = [sys.executable, "-m", "graphgrow.cli.main", command, *arguments, "--out", str(folder)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL)


def result(folder: Path) -> dict[str, Any]:
    """What came out: the checksum of the weights of each model, and the record of each candidate, times left out."""
    found: dict[str, Any] = {}
    for file in sorted(path for name in ("grown", "chosen", "candidates/*") for path in folder.glob(f"{name}/*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        if file.name == "ledger.json":
            found[str(file.relative_to(folder))] = told["weights"]["sha256"]
        if file.name == "record.json" and file.parent.parent.name == "candidates":
            found[str(file.relative_to(folder))] = {key: value for key, value in told.items() if key != "seconds"}
    if not found:
        sys.exit(f"there is no model in {folder}")
    return found


def state(folder: Path) -> str:
    """What a run that was killed has left."""
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("*.json"))
    candidates = len(list(folder.glob("candidates/[0-9]*")))
    return ", ".join(checkpoints) or (f"{candidates} candidates" if candidates else "nothing yet")


def main() -> None:
    """Read the command line, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "search", "evolve"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--moments", type=int, default=0, help="seed of the moments")
    options, arguments = parser.parse_known_args()
    moments = random.Random(options.moments)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        begun = time.perf_counter()
        if start(options.command, arguments, whole).wait() != 0:
            sys.exit("it fails when it is left alone")
        took = time.perf_counter() - begun
        print(f"left alone it takes {took:.0f} s", flush=True)
        kills = ends = 0
        while kills < options.kills:
            process = start(options.command, arguments, killed)
            try:
                process.wait(moments.uniform(0, took))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                print(f"{kills}: killed; {state(killed)}", flush=True)
                continue
            if process.returncode != 0:
                sys.exit("it fails when it is resumed")
            ends += compared(whole, killed)
            shutil.rmtree(killed)  # the next one begins anew, so that there is something to kill
        if killed.exists():
            if start(options.command, arguments, killed).wait() != 0:
                sys.exit("it fails when it is resumed")
            ends += compared(whole, killed)
        print(f"{kills} kills, {ends} runs to the end: all the same, to the bit")


def compared(whole: Path, killed: Path) -> int:
    """One run that came to its end, and is the same as that which was left alone; exits where it is not."""
    wanted, found = result(whole), result(killed)
    if wanted != found:
        differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        sys.exit(f"the results DIFFER: {', '.join(differing)}")
    print(f"ended; {len(found)} results are the same", flush=True)
    return 1


if __name__ == "__main__":
    main()
