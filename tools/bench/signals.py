"""What the signals cost: histograms against a loop of torch.histogram, and observation as a part of an epoch.

    python tools/bench/signals.py

Times are processor time of this process, one torch thread. Histograms: in each of several rounds the least time of
either way, in turns; the median of the rounds, and between which two numbers the quotients were.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from graphgrow.signals.histogram import UnitHistograms
from graphgrow.train.grower import Grower
from graphgrow.train.policy import policies
from tools.bench.measuring import peak_bytes
from tools.bench.results import table

UNITS = 512


def least(call: Callable[[], object], repeats: int) -> float:
    """The least processor time of some calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def histograms(samples: int, rounds: int) -> list[str]:
    """One row: a batch of so many samples for 512 units, counted; the loop reads the same tensor, unit by unit."""
    rows = torch.randn(samples, UNITS)
    mine = UnitHistograms(UNITS, 64)
    mine.update(rows)

    def loop() -> None:
        for unit in range(UNITS):
            torch.histogram(rows[:, unit], bins=64)

    pairs = [(least(loop, 3), least(lambda: mine.update(rows), 200)) for _ in range(rounds)]
    theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    quotients = [a / b for a, b in pairs]
    times = f"{statistics.median(quotients):.0f} ({min(quotients):.0f} to {max(quotients):.0f})"
    return [str(samples), f"{1e3 * theirs:.2f} ms", f"{1e3 * own:.3f} ms", times]


def reading(samples: int, rounds: int) -> list[str]:
    """One row: a batch counted and made entropies of, as once a round."""
    rows = torch.randn(samples, UNITS)
    mine = UnitHistograms(UNITS, 64)

    def loop() -> None:
        for unit in range(UNITS):
            shares = torch.histogram(rows[:, unit], bins=64)[0] / samples
            -torch.special.xlogy(shares, shares).sum() / torch.log((shares > 0).sum())

    def whole() -> None:
        mine.update(rows)
        mine.entropy()

    theirs, own = least(loop, rounds), least(whole, 10 * rounds)
    return [str(samples), f"{1e3 * theirs:.2f} ms", f"{1e3 * own:.3f} ms", f"{theirs / own:.0f}"]


def batches(policy: str, count: int, every: int = 20) -> list[str]:
    """Processor time and peak memory of a training step, observed and not, and what one in `every` adds to an epoch.

    The times are taken in turns. The memory is that of tensors which the step makes.
    """
    graph = gg.trace("graphgrow:resnet")
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    optimizer = torch.optim.AdamW(graph.module.parameters())
    grower = Grower(graph, optimizer, policy, every=1)

    def step(observed: bool) -> float:
        start = time.process_time()
        optimizer.zero_grad()
        with grower.observe() if observed else contextlib.nullcontext():
            F.cross_entropy(grower.module(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return time.process_time() - start

    step(True)  # what is made once is made now
    step(False)
    times = [(step(False), step(True)) for _ in range(count)]
    plain, watched = (statistics.median(column) for column in zip(*times, strict=True))
    more = 100 * (watched / plain - 1) / every
    most = [peak_bytes(functools.partial(step, observed)) / 2**20 for observed in (False, True)]
    times_and_more = [f"{1e3 * plain:.0f} ms", f"{1e3 * watched:.0f} ms", f"{more:.1f} %"]
    return [policy, *times_and_more, *(f"{size:.1f} MiB" for size in most), f"{most[1] - most[0]:.1f} MiB"]


def main() -> None:
    """Read the command line, run, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--batches", type=int, default=20)
    parsed = options.parse_args()
    torch.set_num_threads(1)
    for way, title, sizes in (
        (histograms, "times faster", (16, 32, 48, 64, 128, 256)),
        (reading, "times faster, to entropies", (64,)),
    ):
        rows = [way(samples, parsed.rounds) for samples in sizes]
        print(table(["samples of each unit", "loop", "graphgrow", title], rows))
    names = [name for name in policies() if name in ("dnm", "gradmax")]
    rows = [batches(name, parsed.batches) for name in names]
    head = ["policy", "step", "observed", "more of an epoch", "peak of a step", "of one observed", "more"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
