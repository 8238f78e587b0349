"""`graphgrow grow`: apply mutations, verify the result, and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgrow.cli.keep import OverwriteOption, keep, require_free
from graphgrow.cli.models import BaseOption, InputOption, JsonOption, ModelArgument, SeedOption, open_model
from graphgrow.cli.screen import working


def grow(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the grown model is saved.")],
    mutations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MUTATION", show_default=False, help='Such as "widen(stem, extra=8)"; several go in order.'
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Mutations from a file, one a line; # begins a comment."),
    ] = None,
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
    shape: InputOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply mutations to a model, verify that its function is preserved, and save it.

    All of them are applied or none, and nothing is written unless the verdict is a plain yes. A saved folder can be
    grown again. The mutations of a --recipe come before those of the command line.

    For example:
    $ graphgrow grow graphgrow:resnet "widen(stem, extra=8)" "split(stages.0.0.conv1)" --out runs/wide
    $ graphgrow grow graphgrow:resnet --recipe wider.txt --out runs/wide
    """
    from graphgrow.rewrite.apply import apply
    from graphgrow.rewrite.recipe import read_recipe
    from graphgrow.rewrite.text import parse_mutation

    entries = () if recipe is None else read_recipe(recipe, seed)
    written = [parse_mutation(text) for text in mutations or ()]
    if not entries and not written:
        raise typer.BadParameter("give at least one mutation, or a --recipe")
    require_free(out, overwrite)
    graph = open_model(model, shape, base)
    grown = graph
    with working("growing"):
        for entry in entries:
            grown = apply(grown, entry.mutation, seed=entry.seed)
        grown = apply(grown, written, seed=seed)
    keep(graph, grown, out, model=model, base=base, seed=seed, as_json=as_json)
