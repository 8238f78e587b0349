"""`graphgrow train`: a recipe, trained and grown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from graphgrow.cli.models import JsonOption
from graphgrow.cli.screen import console, show, show_json


def train(
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME", help="A recipe by name (see --list), or a .toml or .yaml file."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where everything is written; runs/NAME if left out.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="FOLDER", help="Where the files of cifar10, mnist and the like lie.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Replaces the recipe's seed.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Replaces the recipe's number of epochs.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files into FOLDER/board.")] = False,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda or cuda:1.")] = "cpu",
    list_them: Annotated[bool, typer.Option("--list", help="List the recipes and exit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model and let it grow while it trains.

    Shows the growth live. Each stage is verified, exported to ONNX and benchmarked; at the end there are the records as
    JSON, a figure and the grown model. Interrupted or killed, the same command goes on from the last checkpoint.

    For example:
    $ graphgrow train --recipe digits-dnm
    $ graphgrow train --recipe cifar10-dnm --root ~/data --out runs/cifar
    $ torchrun --nproc-per-node 2 --no-python graphgrow train --recipe patterns-dnm
    """
    from graphgrow.train.recipe import open_recipe, recipe_names

    if list_them:
        for name in recipe_names():
            show(f"[bold]{name:20}[/] {escape(open_recipe(name).summary)}")
        return
    if recipe is None:
        raise typer.BadParameter("give one, for instance --recipe digits-dnm; --list shows them", param_hint="--recipe")
    from graphgrow.train.loop import train as run
    from graphgrow.train.narration import Narration
    from graphgrow.train.ranks import end_process, started_first

    chosen = open_recipe(recipe)
    if seed is not None:
        chosen = dataclasses.replace(chosen, seed=seed)
    if epochs is not None:
        chosen = dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, epochs=epochs))
    folder = out or Path("runs") / chosen.name
    narration = Narration(console(to_error=as_json))
    record = run(chosen, folder, root=root, narration=narration, board=tensorboard, device=device)
    if as_json and started_first():
        show_json(record.to_json())
    end_process()
