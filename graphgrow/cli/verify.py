"""`graphgrow verify`: whether two models compute the same function."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import typer

from graphgrow.cli.models import BaseOption, InputOption, JsonOption, base_of, open_model
from graphgrow.cli.screen import complain, show_json, show_text, working


def verify(
    before: Annotated[
        str,
        typer.Argument(
            metavar="BEFORE", show_default=False, help="A model; or, without AFTER, a folder that `grow` wrote."
        ),
    ],
    after: Annotated[
        str | None,
        typer.Argument(metavar="AFTER", show_default=False, help="The model that was grown from it."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")] = 0,
    shape: InputOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a grown model with what it was grown from, in float64, node by node.

    A folder alone is compared with the model that it was grown from, built again from its name. The exit code is 1
    unless the function is preserved; a model that was trained after it had grown computes another one.

    For example:
    $ graphgrow verify runs/wide
    $ graphgrow verify runs/wide runs/wider
    """
    from graphgrow.verification.verify import verify as compare

    if after is None:
        if not Path(before).is_dir():
            raise typer.BadParameter(f"{before!r} is no saved folder; name two models, BEFORE and AFTER")
        child = open_model(before, shape, base)
        parent = base_of(child, base)
    else:
        parent, child = open_model(before, shape, base), open_model(after, shape, base)
    with working("verifying"):
        verdict = compare(parent, child, seed=seed)
    if as_json:
        show_json(_plain(dataclasses.asdict(verdict)))
    else:
        show_text(str(verdict))
    if verdict.preserved is not True:
        if not as_json:
            complain("not preserved", "if it was trained after it had grown, compare with a model saved before that")
        raise typer.Exit(1)


def _plain(value: object) -> object:
    """JSON knows no NaN and no infinity: they become text, as in the records."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
