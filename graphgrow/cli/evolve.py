"""`graphgrow evolve`: a Pareto front of grown networks, by evolution with inherited weights."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from graphgrow.cli.models import JsonOption
from graphgrow.cli.screen import complain, console, show_json, working

WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="How many candidates are evaluated at the same time.")
]


def evolve(
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="A recipe by name, or a TOML file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything is written.")] = Path(
        "runs/evolve"
    ),
    workers: WorkersOption = 2,
    engine: Annotated[
        str,
        typer.Option("--engine", metavar="NAME", help="pool: processes of this machine; ray: tasks of a Ray cluster."),
    ] = "pool",
    generations: Annotated[int | None, typer.Option("--generations", min=0, help="Replaces the recipe's.")] = None,
    population: Annotated[int | None, typer.Option("--population", min=1, help="Replaces the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Replaces the recipe's.")] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights", metavar="NUMBERS", help="Weights of the objectives, such as 2,1: picks one of the front."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Evolve a network: random mutations, inherited weights, and the best trade-offs survive.

    The base is trained first. Each child starts as its parent's function, is verified, trained for a while, and
    measured by the recipe's objectives. At the end there is a Pareto front: each member saved, exported, benchmarked.
    Every evaluation is kept: the same command goes on with a study that was interrupted.

    For example:
    $ graphgrow evolve --recipe digits
    $ graphgrow evolve --recipe digits --out runs/more --generations 12 --workers 8
    """
    from graphgrow.search.crews import crew
    from graphgrow.search.evolve import begin
    from graphgrow.search.evolve import evolve as run
    from graphgrow.search.finish import finish
    from graphgrow.search.narration import Narration
    from graphgrow.search.recipe import Evolution, read_recipe

    changes = {"generations": generations, "population": population, "seed": seed}
    followed = read_recipe(Evolution, "evolve", recipe, changes)
    chosen = _weights(weights, len(followed.objectives))
    # Ray prints that a worker died: not into the JSON
    apart = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with apart, begin(followed, out) as study:
        workforce = crew(engine, workers, memory_gib=followed.limits.memory_gib)
        story = Narration(console(to_error=as_json), followed, workforce)
        try:
            story.opening(out, len(study.candidates()))
            with story.live():
                state = run(followed, study, workforce, story)
        except KeyboardInterrupt:
            complain("stopped", f"{len(study.candidates())} evaluations are kept; the same command goes on with them")
            raise
        finally:
            workforce.close()
        with working("exporting and benchmarking the front"):
            found = finish(state, chosen)
    if as_json:
        show_json(
            {
                "study": str(out),
                "choice": found.choice,
                "front": [record.to_json() for record in found.front],
                "generations": [record.to_json() for record in state.generations],
                "test": {str(number): stage.to_json() for number, stage in found.stages.items()},
            }
        )
        return
    story.closing(state, found)


def _weights(text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        numbers = (0.0,)
    if numbers and (len(numbers) != count or min(numbers) <= 0):
        raise typer.BadParameter(f"{text!r}: {count} positive numbers are wanted, as 2,1", param_hint="--weights")
    return numbers
