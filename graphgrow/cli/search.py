"""`graphgrow search`: choose the operators of a network by gradient, while it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from graphgrow.cli.models import JsonOption
from graphgrow.cli.screen import console, show_json, working


def search(
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="A recipe by name, or a TOML file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything is written.")] = Path(
        "runs/search"
    ),
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Replaces the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Replaces the recipe's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Open the sites of a network to several operators, and let gradients choose.

    Each choice starts closed, as the present function. Weights and architecture parameters are then trained in turns,
    on training and on validation batches; the strongest operator of each site is kept, the rest taken away, and the
    network may grow before the next round. At the end: the network saved, exported, benchmarked, and the course of the
    choices as a figure. Interrupted or killed, the same command goes on from the last checkpoint.

    For example:
    $ graphgrow search --recipe digits
    """
    from graphgrow.report import choice_figure
    from graphgrow.search.choosing import choose
    from graphgrow.search.choosing_narration import ChoosingNarration
    from graphgrow.search.recipe import Choosing, read_recipe
    from graphgrow.stage.run import run_stage
    from graphgrow.store.files import write_atomically
    from graphgrow.store.folder import save
    from graphgrow.store.lock import locked

    followed = read_recipe(Choosing, "search", recipe, {"rounds": rounds, "seed": seed})
    story = ChoosingNarration(console(to_error=as_json), followed)
    story.opening()
    with story.live():
        chosen = choose(followed, story, out)
    with locked(out), working("exporting and benchmarking"):
        test = chosen.rounds[-1].test
        _, stage = run_stage(chosen.graph, [], folder=out, index=0, name="chosen", evaluate=lambda _: test, repeats=200)
        saved = save(chosen.graph, out / "chosen")
        pictures = [choice_figure(chosen.rounds, out / f"choices.{suffix}") for suffix in ("png", "svg")]
        told = {"rounds": [record.to_json() for record in chosen.rounds], "stage": stage.to_json()}
        text = json.dumps(told, indent=1, allow_nan=False)
        write_atomically(out / "choices.json", (text + "\n").encode())
    if as_json:
        show_json(told)
        return
    story.closing(chosen, stage, saved, pictures)
