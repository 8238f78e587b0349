"""A fuzz target for what is read from outside: mutations as text, ledgers, and the header of a saved folder.

    python tools/fuzz.py --runs 100000 --seed 0
    python tools/fuzz.py --atheris -max_total_time=600

The first form mutates valid texts by a seeded generator; the second begins with the same texts and is guided by the
branches of graphgrow that it reaches (`pip install atheris`).
Whatever the bytes are: an error of graphgrow, or something that prints as a text that reads the same again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if "--atheris" in sys.argv:  # only what is imported within is seen by it
    import atheris

    with atheris.instrument_imports(include=["graphgrow"]):
        importlib.import_module("graphgrow").pass_names()

import graphgrow as gg
from graphgrow.store.folder import LEDGER_FILE
from tools.faults import WORDS, mutated

TEXTS = (
    "widen(layer1.0.conv1, extra=16)", "split(layers.0:0, units=[0, 2, 5..9], copies=3)", "deepen(:add, kind=conv)",
    "mix-operators(stem, choices=[conv-1, max-pool, none])", "add-heads(block.attention, extra=2, shared=true)",
    "merge-units(a.b, units=[3, 4], into=[0, 1])", "shrink-kernel(conv, to=[1, 3])", "settle-activation(2, keep=old)",
)  # fmt: skip


def check(data: bytes, folder: Path) -> str:
    """Read bytes in each of the ways; returns which of them took it.

    Raises:
        Exception: other than graphgrow's, or an AssertionError where what was read does not come back.
    """
    text = data.decode("utf-8", errors="replace")
    taken = []
    try:
        mutation = gg.parse_mutation(text)
        assert gg.parse_mutation(str(mutation)) == mutation, f"{text!r} is read, and does not come back"
        taken.append("mutation")
    except gg.GraphGrowError:
        pass
    try:
        ledger = gg.Ledger.from_json(text)
        assert gg.Ledger.from_json(ledger.to_json()) == ledger, f"{text!r} is read, and does not come back"
        taken.append("ledger")
    except gg.GraphGrowError:
        pass
    (folder / LEDGER_FILE).write_bytes(data)
    try:
        gg.load(folder)
        taken.append("folder")
    except gg.GraphGrowError:
        pass
    return ", ".join(taken) or "refused"


def corpus(folder: Path) -> list[bytes]:
    """Valid bytes of each kind; the folder is one that `gg.save` wrote."""
    entries = [{"mutation": text, "seed": number} for number, text in enumerate(TEXTS)]
    ledger = json.dumps({"schema": 1, "entries": entries})
    return [*(text.encode() for text in TEXTS), ledger.encode(), (folder / LEDGER_FILE).read_bytes()]


def seeded(runs: int, seed: int, folder: Path) -> Counter[str]:
    """Read mutations of the corpus; outcomes by name."""
    draw, texts = random.Random(seed), corpus(folder)
    outcomes: Counter[str] = Counter()
    for _ in range(runs):
        data = draw.choice(texts)
        if draw.random() < 0.5:
            data = data.replace(draw.choice(WORDS), draw.choice(WORDS), draw.randint(1, 3))
        outcomes[check(mutated(data, draw.choice(texts), draw), folder)] += 1
    return outcomes


def main() -> None:
    """Read the command line, and fuzz."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=int, default=10_000)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--atheris", action="store_true", help="guided by coverage; what follows goes to libFuzzer")
    chosen, others = made.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = gg.save(gg.apply(gg.trace("graphgrow:mlp"), "split(layers.0)"), Path(name) / "saved")
        if chosen.atheris:
            begun = Path(name) / "begun"
            begun.mkdir()
            for number, data in enumerate(corpus(folder)):
                (begun / str(number)).write_bytes(data)
            atheris.Setup([sys.argv[0], *others, str(begun)], lambda data: check(data, folder) and None)
            atheris.Fuzz()
            return
        for outcome, count in sorted(seeded(chosen.runs, chosen.seed, folder).items()):
            print(f"{count:9,} {outcome}")


if __name__ == "__main__":
    main()
