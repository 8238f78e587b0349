"""`graphgrow demo`: the main job on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgrow.cli.models import JsonOption
from graphgrow.cli.screen import console, show_json


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything is written.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the weights and the order of the samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Grow a small network on real data, stage by stage; two minutes or three.

    Trains on scikit-learn's digits to a plateau; then splits, widens, adds a skip, deepens and swaps activations,
    verifies each stage, trains on, exports to ONNX and benchmarks; ends with a table and a figure.

    For example:
    $ graphgrow demo --out runs/demo
    """
    from graphgrow.demo import run_demo

    records = run_demo(out, seed=seed, console=console(to_error=as_json))
    if as_json:
        show_json([record.to_json() for record in records])
