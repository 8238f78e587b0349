"""How analysis, groups, planning and one apply grow with the number of nodes.

    python tools/bench/linearity.py --out docs/speed/linearity.json
    python tools/bench/linearity.py --families concatenating --sizes 100 300 1000

The widened group is one in the middle of the chain and of the dense net, which touches a few nodes, and the stream of
the residual net, which touches all of them. `concatenating` is quadratic by itself, and run only where it is named.
The exponent is the slope of the least-squares line through log processor time over log nodes: processor time, since
the machine may be shared.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from graphgrow.ir.positions import Units
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth
from tools.bench.families import FAMILIES, WIDTH
from tools.bench.measuring import Seconds, power_law, spread_of, timed
from tools.bench.results import Rows, finish, parser, seconds, table

SIZES = (100, 300, 1000, 3000, 10000)
PARTS = ("capture", "analysis", "groups", "plan", "apply")
REPEATED = 2.0  # a part that took longer is not measured again


def measure(family: str, size: int, repeats: int, seed: int) -> dict[str, Any]:
    """The row of one network: for each part the spread of its runs."""
    torch.manual_seed(seed)
    model = FAMILIES[family].build(size)
    example = torch.randn(2, WIDTH)
    runs: dict[str, list[Seconds]] = {part: [] for part in PARTS}

    def note(part: str, call: Callable[[], Any]) -> Any:
        result, taken = timed(call)
        runs[part].append(taken)
        return result

    graph = note("capture", lambda: gg.trace(model, example))
    site = FAMILIES[family].site([group.name for group in graph.groups if group.frozen is None])
    for _ in range(repeats):
        fresh = dataclasses.replace(graph)
        note("analysis", lambda: fresh.analysis)  # noqa: B023  # called at once
        space = note("groups", lambda: fresh.groups).find(site).space  # noqa: B023
        units = Units.appended(space, 4)
        # the index of who touches which space is part of the first plan, and made again for each graph
        note("plan", lambda: plan_growth(fresh.analysis, units, Kind.APPEND))  # noqa: B023
        note("apply", lambda: gg.apply(fresh, f"widen({site}, extra=4)", seed=seed))  # noqa: B023
        if sum(part[-1].cpu for part in runs.values()) > REPEATED * repeats:
            break
    nodes = len(graph.module.graph.nodes)
    spreads = {part: dataclasses.asdict(spread_of(taken)) for part, taken in runs.items()}
    return {"network": f"{family} {size}", "family": family, "nodes": nodes, "site": site, "parts": spreads}


def exponents(rows: Rows, family: str) -> dict[str, float]:
    """For each part the exponent over the rows of a family."""
    mine = [row for row in rows if row["family"] == family]
    nodes = [row["nodes"] for row in mine]
    return {part: power_law(nodes, [row["parts"][part]["cpu"] for row in mine]).exponent for part in PARTS}


def show(rows: Rows) -> str:
    """Least processor times, and the exponents below each family."""
    lines = []
    for family in dict.fromkeys(row["family"] for row in rows):
        mine = sorted((row for row in rows if row["family"] == family), key=lambda row: row["nodes"])
        lines += [[family, str(row["nodes"]), *(seconds(row["parts"][part]["cpu"]) for part in PARTS)] for row in mine]
        if len(mine) > 1:
            found = exponents(rows, family)
            lines.append([f"**{family}**", "**exponent**", *(f"**{found[part]:.2f}**" for part in PARTS)])
    return table(["family", "nodes", *PARTS], lines)


def main() -> None:
    """Read the command line, run, write."""
    options = parser(__doc__)
    options.add_argument("--families", nargs="+", choices=list(FAMILIES), default=["chain", "residual", "dense"])
    options.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of nodes, roughly")
    options.add_argument("--repeats", type=int, default=5)
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    measure("residual", 20, 1, 0)  # load the rules and passes
    rows: Rows = []
    for family in parsed.families:
        for size in parsed.sizes:
            rows.append(measure(family, size, parsed.repeats, parsed.seed))
            print(show(rows[-1:]).splitlines()[-1], flush=True)
    finish(parsed, rows, "network", show)


if __name__ == "__main__":
    main()
