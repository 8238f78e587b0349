"""What the trainer says on the terminal: live progress, and a line for each growth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graphgrow.data.parts import Data
from graphgrow.graph import Graph
from graphgrow.records import DecisionRecord, EpochRecord, StageRecord, TrainingRecord
from graphgrow.rewrite.cost import flops_text
from graphgrow.train.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console

Watch = Callable[[EpochRecord], None]
_SHOWN = 6  # mutations of a stage
_BLOCKS = " ▁▂▃▄▅▆▇█"


class Narration:
    """Tells the story of a training.

    Args:
        console: where; None is silence.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._declined = ""

    def opening(self, recipe: Recipe, data: Data, graph: Graph, done: int) -> None:
        """What is going to happen, and on what."""
        counts = (
            f"{len(data.training):,} for training, {len(data.validation):,} for validation, {len(data.test):,} held out"
        )
        self._say(f"[bold]{_plain(recipe.name)}[/]: {_plain(recipe.summary)}")
        self._say(f"  data   {_plain(data.source)}: {counts}")
        self._say(f"  model  {graph.parameter_count:,} parameters, {flops_text(graph.flops)} a sample")
        if done:
            self._say(f"  going on after epoch {done}", style="yellow")

    @contextlib.contextmanager
    def progress(self, epochs: int) -> Iterator[Watch]:
        """A bar of the epochs, and below it the losses and how the network has grown; it disappears at the end."""
        if self._console is None or not self._console.is_terminal:
            yield lambda _: None
            return
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.text import Text

        columns = (TextColumn("  epoch {task.completed}/{task.total}"), BarColumn(bar_width=24), TimeElapsedColumn())
        progress = Progress(*columns, console=self._console)
        task = progress.add_task("", total=epochs)
        sizes: list[int] = []
        below = Text(no_wrap=True, overflow="ellipsis")

        def watch(record: EpochRecord) -> None:
            sizes.append(record.parameters)
            below.plain = (
                f"  loss {record.training_loss:.3f}, validation {record.validation_loss:.3f} "
                f"({record.validation_accuracy:.1%}), {record.parameters:,} parameters {growth_bar(sizes)}"
            )
            progress.update(task, completed=record.epoch)

        with Live(Group(progress, below), console=self._console, transient=True):
            yield watch

    def growth(self, stage: StageRecord, decision: DecisionRecord, epoch: int) -> None:
        """A stage has begun, with a growth or behind one that was taken back."""
        grew = f"{decision.parameters_before:,} -> [bold]{decision.parameters_after:,}[/] parameters"
        self._say(f"\n[bold]stage {stage.index}[/] after epoch {epoch}: {_plain(decision.reason)}; {grew}")
        if decision.verdict == "rolled back":
            self._say("  [yellow]the last growth is taken back[/], with the optimizer's state")
            return
        reasons = reasons_of(decision.numbers)
        alone = len(reasons) == len(stage.mutations)  # each mutation has its own
        for number, mutation in enumerate(stage.mutations[:_SHOWN]):
            self._say(f"  [cyan]{_plain(mutation)}[/]")
            if alone:
                self._say(f"    {reasons[number]}", style="dim")
        if len(stage.mutations) > _SHOWN:
            self._say(f"  and {len(stage.mutations) - _SHOWN} more", style="cyan")
        if not alone:
            for reason in reasons[:_SHOWN]:
                self._say(f"  because of {reason}", style="dim")
        off = f"off by {stage.max_error:.1e} at most, {stage.bound:.1e} allowed"
        if "gap" in decision.numbers:
            gap = f"its start moved the outputs by {decision.numbers['gap']:.1%}"
            self._say(f"  [yellow]function not preserved[/]: {gap}; the growth itself was {off}")
        else:
            self._say(f"  [green]function preserved[/]: {off}")

    def declined(self, decision: DecisionRecord, epoch: int) -> None:
        """It was time, and nothing was to be done; told once for each reason."""
        if decision.reason != self._declined:
            self._say(f"\nnot grown after epoch {epoch}: {_plain(decision.reason)}", style="yellow")
        self._declined = decision.reason

    def warn(self, text: str) -> None:
        """Something that was worked around."""
        self._say(_plain(text), style="yellow")

    def closing(self, record: TrainingRecord, picture: Path, saved: Path) -> None:
        """The table, and where everything is."""
        if self._console is None:
            return
        from graphgrow.report import table

        self._say("")
        self._console.print(table(record.stages))
        self._say(
            f"\nheld-out accuracy [bold]{record.test_accuracy:.1%}[/] after {record.training_flops / 1e9:,.3g} GFLOPs"
        )
        self._say(f"[bold]files[/] in {_plain(str(saved.parent))}")
        self._say(f"  figure        {picture.name}")
        self._say("  records       training.json, and NN-name.json beside each stage's NN-name.onnx")
        self._say(f"  grown model   {saved.name}/ (ledger and weights)")
        self._say(f"done in {record.seconds:.0f} s")

    def _say(self, text: str, style: str | None = None) -> None:
        if self._console is not None:
            self._console.print(text, style=style, highlight=False, soft_wrap=True)


def reasons_of(numbers: Mapping[str, float], most: int = 3) -> list[str]:
    """The numbers of a decision in words, for each candidate that it took; of each the first few."""
    found: dict[str, list[str]] = {}
    for name, value in numbers.items():
        plain, _, number = name.rpartition("_")
        kind, place = (plain, number) if number.isdigit() else (name, "")
        if name != "gap":
            found.setdefault(place, []).append(f"{kind.replace('_', ' ')} {value:.3g}")
    return [", ".join(parts[:most]) for parts in found.values()]


def growth_bar(sizes: list[int], width: int = 16) -> str:
    """The sizes of all epochs so far as a line of blocks, the largest the full height."""
    step = max(1, -(-len(sizes) // width))
    shown = sizes[::step]
    return "".join(_BLOCKS[max(1, round(8 * size / max(sizes)))] for size in shown)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
