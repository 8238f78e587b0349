"""Random models by every pass, alone and in chains of 8 to 32, compared by outputs and by gg.verify; a line a batch.

    python tools/properties.py --profile nightly --out runs/properties.jsonl
    python tools/properties.py --profile nightly --exports 0.25 --out runs/exports.jsonl
    python tools/properties.py --profile nightly --further 1 --out runs/modes.jsonl
    python tools/properties.py --out runs/properties.jsonl --totals

Models come from the strategies of tests/properties, so that a new operator or pass is covered without being told.
Each rewrite is compared with its parent in float64 by the outputs and, in train mode, the buffers, which does not use
gg.verify; mutations alone and whole chains are then given to gg.verify too. On samples: the modes lattice, gradients
and alive, replay to the bit, save and load, ONNX parity. A second call, of a later commit too, goes on behind the last
seed of the file. The exit status is 1 where something was found.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.properties.models import models
from tools.campaign.counts import Batch, append, read, total
from tools.campaign.trial import RARE, SELDOM, Trial

ROOT = Path(__file__).resolve().parents[1]
MODELS = 3  # in a batch


@dataclass(frozen=True)
class Profile:
    """How long a campaign goes on: until all of these are reached, or the minutes are over."""

    rewrites: int
    chains: int
    minutes: float


PROFILES = {
    "dev": Profile(rewrites=200, chains=20, minutes=1),
    "nightly": Profile(rewrites=10_000, chains=1_000, minutes=60),
    "release": Profile(rewrites=100_000, chains=10_000, minutes=24 * 60),
}


def run_batch(number: int, commit: str, exports: float = RARE, further: float = SELDOM) -> Batch:
    """The models of one seed.

    Args:
        number: the seed.
        commit: of the sources.
        exports: the share of what is verified that is exported as well.
        further: the share of mutations alone that are verified in all modes.
    """
    batch, start, drawn = Batch(number, commit), time.process_time(), itertools.count()

    @seed(number)
    @settings(
        max_examples=1 + MODELS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def models_of_this_seed(data: st.DataObject) -> None:
        model = data.draw(models())
        if next(drawn):  # the first is the smallest there is, whatever the seed
            Trial.run(model, random.Random(f"{number}/{batch.counts['models']}"), batch, exports, further)

    models_of_this_seed()
    batch.seconds = time.process_time() - start
    return batch


def commit_of_sources() -> str:
    """The commit that is checked out, with a plus where files differ from it; empty outside of git."""
    try:
        said = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said[0] + ("+" if said[1] else "")


def main() -> None:
    """Read the command line, go on, and print the totals."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--profile", choices=PROFILES, default="dev")
    made.add_argument("--out", type=Path, required=True, help="file of JSON lines, read and appended to")
    made.add_argument("--minutes", type=float, help="instead of the profile's")
    made.add_argument("--first-seed", type=int, default=0, help="of a file that is new")
    made.add_argument("--exports", type=float, default=RARE, help="share of what is verified that goes to ONNX as well")
    made.add_argument("--further", type=float, default=SELDOM, help="share of mutations alone verified in all modes")
    made.add_argument("--totals", action="store_true", help="only print what the file holds")
    chosen = made.parse_args()
    torch.set_num_threads(1)
    known = read(chosen.out)
    if not chosen.totals:
        go_on(PROFILES[chosen.profile], chosen.minutes, chosen.out, chosen.first_seed, chosen.exports, chosen.further)
        known = read(chosen.out)
    counts, passes, finds = total(known)
    for name, count in [*sorted(counts.items()), *sorted(passes.items())]:
        print(f"{count:9,} {name}")
    for find in finds:
        print(f"\n{find.what}\n  {find.model}\n  {list(find.mutations)}")
    raise SystemExit(bool(finds))


def go_on(
    profile: Profile,
    minutes: float | None,
    out: Path,
    first: int = 0,
    exports: float = RARE,
    further: float = SELDOM,
) -> None:
    """Batches behind the last seed of the file, until the profile's counts or its time are reached."""
    known, commit = read(out), commit_of_sources()
    end = time.monotonic() + 60 * (profile.minutes if minutes is None else minutes)
    counts = total(known)[0]
    for number in itertools.count(1 + max((batch["seed"] for batch in known), default=first - 1)):
        if time.monotonic() > end or (counts["rewrites"] >= profile.rewrites and counts["chains"] >= profile.chains):
            return
        batch = run_batch(number, commit, exports, further)
        append(out, batch)
        counts.update(batch.counts)
        print(f"seed {number}: {counts['rewrites']:,} rewrites, {counts['chains']:,} chains, "
              f"{counts['finds']} finds", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
