"""Make small mistakes in the sources, one at a time, and see the tests fail.

    python tools/mutants.py --out runs/mutants.jsonl

Each mistake of tools/mutation/listed.py is made in a temporary copy, and the tests that mirror its file are run there.
A second call goes on with those that the file lacks. First, all of these tests must pass without a mistake. The exit
status is 1 where a mistake was not noticed, or the source has changed so that it has no place.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hypothesis  # noqa: F401  # loaded once, for all forks
import pytest  # noqa: F401
import torch

from tools.mutation.listed import MUTANTS, ROOT, Mutant
from tools.mutation.trial import made, make_copy, outcome


def run(mutants: tuple[Mutant, ...], out: Path, timeout_s: float, baseline: bool) -> list[dict[str, str]]:
    """Try the mutants that the file lacks; returns every line of it that is about one of them."""
    known = {(line["path"], line["old"], line["new"]): line for line in read(out)}
    missing = [mutant for mutant in mutants if (mutant.path, mutant.old, mutant.new) not in known]
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name) / "tree", Path(name) / "log"
        folder.mkdir()
        make_copy(ROOT, folder)
        if baseline and missing:
            tests = tuple(sorted({test for mutant in missing for test in mutant.tests}))
            if outcome(folder, tests, 20 * timeout_s, log) != "passed":
                raise SystemExit(f"the tests do not pass as it is:\n{log.read_text()[-3000:]}")
        for number, mutant in enumerate(missing, 1):
            try:
                with made(mutant, folder):
                    found = outcome(folder, mutant.tests, timeout_s, log)
            except ValueError as error:
                print(error, flush=True)
                continue
            line = {"path": mutant.path, "old": mutant.old, "new": mutant.new, "tests": found}
            known[mutant.path, mutant.old, mutant.new] = line
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"[{number}/{len(missing)}] {found}: {mutant.path}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    return [known[key] for key in ((m.path, m.old, m.new) for m in mutants) if key in known]


def read(out: Path) -> list[dict[str, str]]:
    """The lines of a file, if there is one."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def main() -> None:
    """Read the command line, try, and print the totals."""
    made_ = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made_.add_argument("--out", type=Path, required=True, help="file of JSON lines, read and appended to")
    made_.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one mistake")
    made_.add_argument("--baseline", action=argparse.BooleanOptionalAction, default=True)
    chosen = made_.parse_args()
    torch.set_num_threads(1)
    lines = run(MUTANTS, chosen.out, chosen.timeout, chosen.baseline)
    survivors = [line for line in lines if line["tests"] == "passed"]
    print(f"{len(lines) - len(survivors)} of {len(lines)} noticed; {len(MUTANTS) - len(lines)} have no place any more")
    for line in survivors:
        print(f"survived: {line['path']}: {line['old']!r} -> {line['new']!r}")
    raise SystemExit(bool(survivors) or len(lines) < len(MUTANTS))


if __name__ == "__main__":
    main()
