"""What the demo says on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from graphgrow.data.evaluation import Score
from graphgrow.data.parts import Data
from graphgrow.graph import Graph
from graphgrow.records import StageRecord
from graphgrow.report import table
from graphgrow.rewrite.contract import Mutation

Watch = Callable[[int, Score], None]
BASE = "graphgrow.demo.digits:build_model"


class Narration:
    """Tells the story of a run.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def opening(self, data: Data, graph: Graph) -> None:
        """What is going to happen, and on what."""
        counts = f"{len(data.training)} for training, {len(data.validation)} for validation, {len(data.test)} held out"
        self._say("[bold]graphgrow demo[/]: a network that grows without forgetting")
        self._say(f"  data   scikit-learn's digits, 8x8 pixels: {counts}")
        self._say(
            f"  model  a residual net of {graph.parameter_count:,} parameters, trained to its plateau, then grown"
        )

    def stage(self, index: int, kind: str, mutations: Sequence[Mutation]) -> None:
        """One stage begins."""
        self._say(f"\n[bold]stage {index}: {kind}[/]")
        for mutation in mutations:
            self._say(f"  {escape(str(mutation))}", style="cyan")

    @contextlib.contextmanager
    def training(self, max_epochs: int) -> Iterator[Watch]:
        """A progress bar for one training; it disappears at the end."""
        columns = (
            TextColumn("  training"),
            BarColumn(bar_width=30),
            TextColumn("epoch {task.completed}, validation {task.fields[accuracy]:.1%}"),
            TimeElapsedColumn(),
        )
        quiet = not self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=quiet) as progress:
            task = progress.add_task("", total=max_epochs, accuracy=0.0)
            yield lambda epoch, now: progress.update(task, completed=epoch, accuracy=now.accuracy)

    def result(self, record: StageRecord) -> None:
        """One stage has ended."""
        if record.mutations:
            self._say(
                f"  [green]function preserved[/]: off by {record.max_error:.1e} at most, {record.bound:.1e} allowed"
            )
        if record.accuracy_after is not None:
            grown = f"{record.accuracy_before:.1%} after growth, " if record.mutations else ""
            self._say(f"  held-out accuracy {grown}[bold]{record.accuracy_after:.1%}[/] after training")

    def control(self, epochs: int) -> None:
        """The control begins."""
        self._say(f"\n[bold]control[/]: the base trained on for the same {epochs} epochs, without growing")

    def closing(
        self,
        records: Sequence[StageRecord],
        control: float,
        pictures: Sequence[Path],
        saved: Path,
        seconds: float,
    ) -> None:
        """The table, and where everything is."""
        base, grown = records[0].accuracy_after or 0.0, records[-1].accuracy_after or 0.0
        self._say(f"  held-out accuracy [bold]{control:.1%}[/]\n")
        self._console.print(table(records))
        self._say(
            f"\nheld-out accuracy: base {base:.1%}, grown [bold]{grown:.1%}[/], base trained as long {control:.1%}"
        )
        folder = saved.parent
        self._say(f"[bold]files[/] in {escape(str(folder))}")
        self._say(f"  figure        {', '.join(picture.name for picture in pictures)}")
        self._say("  each stage    NN-name.onnx, parity-checked, and its record NN-name.json")
        self._say(f"  grown model   {saved.name}/ (ledger and weights)")
        self._say(f"\nlook into it: graphgrow inspect {escape(str(saved))} --base {BASE}", style="dim")
        self._say(f"done in {seconds:.0f} s")

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, soft_wrap=True)
