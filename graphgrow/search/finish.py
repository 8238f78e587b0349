"""What is left at the end of an evolution: the front saved, exported, benchmarked and tested, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphgrow.data.evaluation import score
from graphgrow.data.parts import Part
from graphgrow.graph import Graph
from graphgrow.records import CandidateRecord, StageRecord
from graphgrow.report import Scale, front_figure, lineage, lineage_figure
from graphgrow.search.evaluate import base_model, data_of
from graphgrow.search.evolve import State
from graphgrow.search.objectives import objective
from graphgrow.search.recipe import Evolution
from graphgrow.stage.run import run_stage
from graphgrow.store.files import write_atomically
from graphgrow.store.folder import load, save


@dataclass(frozen=True)
class Finished:
    """Where everything is.

    Attributes:
        front: the candidates of the front, by the first objective.
        stages: their exports, benchmarks and accuracies on the test part, by number.
        choice: number of the one for equal weights, or for those that were asked for.
        folder: of the front: `NN-candidate-M/` as `gg.save` writes it, `NN-candidate-M.onnx`, and its record.
        figures: `front.png`, `lineage.png`, and the same as SVG.
    """

    front: tuple[CandidateRecord, ...]
    stages: dict[int, StageRecord]
    choice: int
    folder: Path
    figures: tuple[Path, ...]


def scales(recipe: Evolution) -> list[Scale]:
    """How the objectives of a recipe are shown."""
    known = [objective(goal.name) for goal in recipe.objectives]
    return [
        Scale(one.name, one.title, one.short, one.unit, one.scale, one.decimals, one.larger_is_better) for one in known
    ]


def finish(
    state: State, weights: tuple[float, ...] = (), watch: Callable[[CandidateRecord], None] = lambda record: None
) -> Finished:
    """Save, export, benchmark and test each candidate of the front, and draw the evolution.

    Args:
        state: of the evolution.
        weights: of the objectives, for the one choice; none for equal ones.
        watch: is told which candidate comes next.

    Raises:
        ExportError, BenchmarkError: as `run_stage` does.
        SearchError: if there is not one positive weight for each objective.
    """
    front, recipe = state.front(), state.recipe
    choice = state.choice(weights or (1.0,) * len(recipe.objectives)).number
    test = data_of(recipe.task.data).test
    folder = state.folder / "front"
    stages = {}
    for place, record in enumerate(front):
        watch(record)
        graph = load(state.model_folder(record), base_model(recipe.task))
        _, stages[record.number] = run_stage(
            graph,
            [],
            folder=folder,
            index=place,
            name=f"candidate-{record.number}",
            evaluate=lambda one: _accuracy(one, test),
            repeats=200,
        )
        save(graph, folder / f"{place:02d}-candidate-{record.number}")
    everyone = state.valid()
    tree = lineage(everyone)
    figures = []
    for suffix in ("png", "svg"):
        figures.append(
            front_figure(everyone, front, state.generations, scales(recipe), state.folder / f"front.{suffix}")
        )
        numbers = [record.number for record in front]
        figures.append(lineage_figure(tree, numbers, scales(recipe)[0], state.folder / f"lineage.{suffix}"))
    listed = [{**record.to_json(), "test": stages[record.number].to_json()} for record in front]
    text = json.dumps({"choice": choice, "front": listed}, indent=1, allow_nan=False)
    write_atomically(state.folder / "front.json", (text + "\n").encode())
    return Finished(tuple(front), stages, choice, folder, tuple(figures))


def _accuracy(graph: Graph, test: Part) -> float:
    return score(graph.module, test).accuracy
