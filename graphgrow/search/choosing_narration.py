"""What a differentiable search shows while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graphgrow.data.evaluation import Score
from graphgrow.graph import Graph
from graphgrow.records import RoundRecord, StageRecord
from graphgrow.report import choice_table
from graphgrow.search.alternation import Site
from graphgrow.search.choosing import Chosen
from graphgrow.search.recipe import Choosing

WIDTH = 12  # of a bar
MOST_ROWS = 16


class ChoosingNarration:
    """Tells the story of a search; a watcher of `choose`.

    Args:
        console: where.
        recipe: that is followed.
    """

    def __init__(self, console: Console, recipe: Choosing) -> None:
        self._console, self._recipe = console, recipe
        self._at, self._step = "training the base", 0
        self._sites: Sequence[Site] = ()
        self._start = time.monotonic()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the screen until the end; nothing where there is no terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self.screen, console=self._console, refresh_per_second=4, transient=True):
            yield

    # -- what choose tells -----------------------------------------------------------------------------------

    def resumed(self, index: int, steps: int, notes: Sequence[str]) -> None:
        """A search that was interrupted goes on."""
        for note in notes:
            self._console.print(
                f"passed over a checkpoint: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True
            )
        behind = f", behind step {steps}" if steps else ""
        if index >= self._recipe.rounds:
            where = "behind the last round"
        elif index < 0:
            where = f"with the base{behind}"
        else:
            self._at = f"round {index}"
            where = f"with round {index}{behind}"
        self._say(f"  [yellow]going on {where}[/]")

    def trained(self, graph: Graph, found: Score) -> None:
        """The base is trained."""
        self._say(f"base: {graph.parameter_count:,} parameters, validation accuracy {found.accuracy:.1%}")

    def opened(self, index: int, grown: Sequence[str], mixed: Sequence[str]) -> None:
        """A round begins."""
        self._at, self._step, self._sites = f"round {index}", 0, ()
        self._say(f"\n[bold]round {index}[/]: {len(mixed)} sites are opened; the function is preserved")
        for text in (*grown, *mixed):
            self._console.print(f"  {text}", style="cyan", highlight=False, markup=False, soft_wrap=True)

    def turned(self, step: int, sites: Sequence[Site]) -> None:
        """Some steps of the alternation were done."""
        self._step, self._sites = step, sites

    def settled(self, record: RoundRecord) -> None:
        """A round has ended."""
        moved = sum(choice.kept != choice.names[0] for choice in record.choices)
        self._say(
            f"  {moved} of {len(record.choices)} sites exchange their operator\n"
            f"  the gap: validation loss {record.loss_open:.4f} -> {record.loss_closed:.4f}, "
            f"accuracy {record.accuracy_open:.1%} -> {record.accuracy_closed:.1%}"
        )
        if record.guarded_at is not None:
            self._say(f"  [yellow]too many skips led; the choice was stopped in step {record.guarded_at}[/]")
        self._say(
            f"  trained on: validation accuracy [bold]{record.accuracy:.1%}[/], {record.parameters:,} parameters, "
            f"{record.seconds:.0f} s"
        )
        self._sites = ()

    # -- the screen ------------------------------------------------------------------------------------------

    def screen(self) -> RenderableType:
        """The live screen as it is now: for each site who leads, and by how much."""
        parts: list[RenderableType] = [Text()]
        if self._sites:
            table = Table.grid(padding=(0, 2))
            order = sorted(range(len(self._sites)), key=lambda place: self._sites[place].certainty)
            for site in (self._sites[place] for place in sorted(order[:MOST_ROWS])):
                share = site.certainty
                bar = Text("━" * round(WIDTH * share), "blue") + Text("━" * (WIDTH - round(WIDTH * share)), "dim")
                table.add_row(Text(site.name), bar, f"{share:.2f}", Text(site.choice.names[site.leader], "bold"))
            parts.append(table)
            if len(self._sites) > MOST_ROWS:
                parts.append(Text(f"and {len(self._sites) - MOST_ROWS} that are surer", style="dim"))
        spent = f"{time.monotonic() - self._start:.0f} s"
        line = Table.grid(padding=(0, 1))
        if self._sites:
            steps = self._recipe.alternation.steps
            progress = ProgressBar(total=max(1, steps), completed=self._step, width=24)
            line.add_row(self._at, progress, f"step {self._step} of {steps}", spent)
        else:  # of other trainings no steps are told
            line.add_row(self._at, spent)
        return Group(*parts, line)

    # -- before and after ------------------------------------------------------------------------------------

    def opening(self) -> None:
        """What is going to happen."""
        recipe = self._recipe
        count = "one round" if recipe.rounds == 1 else f"{recipe.rounds} rounds"
        self._say(f"[bold]differentiable search[/] from {recipe.task.model} on {recipe.task.data}: {count}")

    def closing(self, chosen: Chosen, stage: StageRecord, saved: Path, pictures: Sequence[Path]) -> None:
        """What was chosen, and where everything is."""
        self._console.print()
        self._console.print(choice_table(chosen.rounds))
        last = chosen.rounds[-1]
        timed = f", {stage.benchmark.latencies[0].median_ms:.3f} ms with onnxruntime" if stage.benchmark else ""
        self._say(
            f"\ntest accuracy: base {chosen.test:.1%}, chosen [bold]{last.test:.1%}[/] with {last.parameters:,} "
            f"parameters{timed}"
        )
        self._say(f"[bold]files[/] in {escape(str(saved.parent))}")
        self._say(f"  figure          {', '.join(picture.name for picture in pictures)}")
        self._say("  records         choices.json, and 00-chosen.json beside 00-chosen.onnx")
        self._say(f"  chosen network  {saved.name}/ (ledger and weights)")
        self._say(f"done in {time.monotonic() - self._start:.0f} s")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, emoji=False, soft_wrap=True)
