"""`graphgrow grow`: apply mutations, verify the result, and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from graphgrow.cli.models import BaseOption, InputOption, JsonOption, ModelArgument, again, open_model
from graphgrow.cli.screen import show, show_json, show_text, working
from graphgrow.errors import NotPreserved


def grow(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the grown model goes.")],
    mutations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MUTATION]...", show_default=False, help='As "widen(stem, extra=8)"; several in order.'
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Mutations from a file, one a line; # begins a comment."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the fresh weights.")] = 0,
    shape: InputOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply mutations to a model, verify that its function is preserved, and save it.

    All of them or none; nothing is written unless the verdict is a plain yes. A saved folder can be grown again.
    Those of a recipe come before those of the command line.

    For example:
    $ graphgrow grow graphgrow:resnet "widen(stem, extra=8)" "split(stages.0.0.conv1)" --out runs/wide
    $ graphgrow grow graphgrow:resnet --recipe wider.txt --out runs/wide
    """
    from graphgrow.rewrite.apply import apply
    from graphgrow.rewrite.ledger import Entry
    from graphgrow.rewrite.recipe import read_recipe
    from graphgrow.rewrite.text import parse_mutation
    from graphgrow.store.folder import save
    from graphgrow.verification.verify import verify

    entries = [] if recipe is None else list(read_recipe(recipe, seed))
    entries += [Entry(str(parse_mutation(text)), seed) for text in mutations or ()]
    if not entries:
        raise typer.BadParameter("give at least one mutation, or a --recipe")
    graph = open_model(model, shape, base)
    grown = graph
    with working("growing"):
        for entry in entries:
            grown = apply(grown, entry.mutation, seed=entry.seed)
    with working("verifying"):
        verdict = verify(graph, grown, seed=seed)
    if verdict.preserved is not True:
        raise NotPreserved(f"{verdict}\nnothing was saved; leave out the mutation at fault, or report it as a defect")
    save(grown, out)
    if as_json:
        show_json(
            {
                "model": model,
                "folder": str(out),
                "mutations": [entry.mutation for entry in entries],
                "seeds": [entry.seed for entry in entries],
                "parameters_before": graph.parameter_count,
                "parameters_after": grown.parameter_count,
                "preserved": verdict.preserved,
                "max_error": verdict.max_error,
                "bound": verdict.bound,
            }
        )
        return
    for entry in entries:
        show(f"[cyan]{escape(entry.mutation)}[/]")
    show(f"{graph.parameter_count:,} -> [bold]{grown.parameter_count:,}[/] parameters")
    show_text(str(verdict))
    own = None if grown.base else base or model  # a base without a name has to be given again
    show(f"saved in {escape(str(out))}")
    show(f"[dim]next: graphgrow export {escape(again(str(out), None, own))} -o {escape(str(out))}.onnx[/]")
