"""`graphgrow scale`: every width and depth times a factor, verified and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgrow.cli.keep import OverwriteOption, keep, require_free
from graphgrow.cli.models import BaseOption, InputOption, JsonOption, ModelArgument, SeedOption, open_model
from graphgrow.cli.screen import show_text, working


def scale(
    model: ModelArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Where the grown model is saved; without it, the plan alone is shown."
        ),
    ] = None,
    width: Annotated[float, typer.Option("--width", metavar="FACTOR", help="Factor on every width, at least 1.")] = 1.0,
    depth: Annotated[float, typer.Option("--depth", metavar="FACTOR", help="Factor on every depth, at least 1.")] = 1.0,
    multiple: Annotated[int | None, typer.Option("--multiple", help="Round widths up to a multiple of this.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PATTERN", help='What may grow, by the names in the plan: "*.mlp.*"; may be repeated.'
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
    shape: InputOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grow every width and every depth of a model by a factor, verify it, and save it.

    Without --out nothing is grown: a plan says what would grow, by how much, and what would not, and why.

    For example:
    $ graphgrow scale torchvision:resnet18 --width 1.5 --depth 1.5
    $ graphgrow scale graphgrow:vit --width 2 --only "*.mlp.*" --out runs/wide
    """
    from graphgrow.bulk.scale import plan_scale
    from graphgrow.bulk.scale import scale as grow

    if width == depth == 1:
        raise typer.BadParameter("give --width or --depth, a factor above 1")
    if as_json and out is None:
        raise typer.BadParameter("--json tells what was grown; add --out")
    if out is not None:
        require_free(out, overwrite)
    graph = open_model(model, shape, base)
    patterns = only or ["*"]
    if out is None:
        with working("planning"):
            plan = plan_scale(graph, width, depth, multiple, patterns)
        show_text(str(plan))
        return
    with working("growing"):
        grown = grow(graph, width, depth, multiple, seed=seed, only=patterns)
    keep(graph, grown, out, model=model, base=base, seed=seed, as_json=as_json)
