"""Kill a training or a search with SIGKILL at random moments, resume it, and compare with one that was left alone.

    python tools/kill_training.py --recipe digits-dnm --epochs 30 --kills 20
    python tools/kill_training.py --search --recipe digits --kills 20

The moments are drawn evenly over the time that the whole run took; one that ends before its moment is compared,
and begun anew. Ends with exit code 1 if the weights differ.
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


def start(options: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """The run as a process of its own."""
    what = ["search"] if options.search else ["train", "--epochs", str(options.epochs)]
    command = [sys.executable, "-m", "graphgrow.cli.main", *what, "--recipe", options.recipe, "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def weights(folder: Path) -> str:
    """The checksum of the weights of the model that came out."""
    (file,) = (path for name in ("grown", "chosen") for path in folder.glob(f"{name}/ledger.json"))
    header = json.loads(file.read_text(encoding="utf-8"))
    return str(header["weights"]["sha256"])


def main() -> None:
    """Read the command line, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="kill graphgrow search instead of graphgrow train")
    parser.add_argument("--recipe", default="digits-dnm")
    parser.add_argument("--epochs", type=int, default=30, help="of a training")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        begun = time.perf_counter()
        if start(options, whole).wait() != 0:
            sys.exit("it fails when it is left alone")
        took = time.perf_counter() - begun
        print(f"left alone it takes {took:.0f} s")
        for number in range(options.kills):
            process = start(options, killed)
            try:
                process.wait(moments.uniform(0, took))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            found = sorted(path.name for path in (killed / "checkpoints").glob("*.json"))
            state = "ended by itself" if process.returncode == 0 else "killed"
            print(f"{number + 1}: {state}; {', '.join(found) or 'no checkpoint yet'}", flush=True)
            if process.returncode == 0:  # the next one begins anew, so that there is something to kill
                if weights(whole) != weights(killed):
                    sys.exit("the weights DIFFER")
                shutil.rmtree(killed)
        if start(options, killed).wait() != 0:
            sys.exit("it fails when it is resumed")
        same = weights(whole) == weights(killed)
        print("the weights are the same, to the bit" if same else "the weights DIFFER")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
