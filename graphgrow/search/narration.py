"""What an evolution shows while it runs: on a terminal a live screen, elsewhere a line for each generation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graphgrow.network.describe import counted
from graphgrow.records import CandidateRecord, GenerationRecord
from graphgrow.report import front_table
from graphgrow.search.engine import Crew
from graphgrow.search.evolve import State
from graphgrow.search.finish import Finished, scales
from graphgrow.search.job import Job
from graphgrow.search.recipe import Evolution

BARS = "▁▂▃▄▅▆▇█"
MOST_ROWS = 12


class Narration:
    """Tells the story of an evolution; a watcher of `evolve`.

    Args:
        console: where.
        recipe: that is followed.
        crew: whose states are shown.
    """

    def __init__(self, console: Console, recipe: Evolution, crew: Crew) -> None:
        self._console, self._recipe, self._crew = console, recipe, crew
        self._state: State | None = None
        self._generation = self._done = self._all = 0
        self._last: CandidateRecord | None = None
        self._start = time.monotonic()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the screen until the end."""
        if not self._console.is_terminal:
            yield
            return
        screen = Live(
            get_renderable=self.screen, console=self._console, refresh_per_second=4, transient=True, screen=False
        )
        with screen:
            yield

    # -- what evolve tells -----------------------------------------------------------------------------------

    def started(self, jobs: Sequence[Job], done: int) -> None:
        """A rung begins."""
        generation = jobs[0].generation if jobs else self._generation
        self._generation, self._done, self._all = generation, done, len(jobs)
        if done and done == len(jobs):
            return
        if done:
            self._say(f"[dim]generation {generation} goes on: {done} of {len(jobs)} were evaluated before[/]")

    def evaluated(self, record: CandidateRecord) -> None:
        """One evaluation has ended."""
        self._done += 1
        self._last = record
        if record.status != "done":
            self._say(f"[yellow]candidate {record.number} failed[/]: {escape(record.reason[:300])}")

    def selected(self, record: GenerationRecord, state: State) -> None:
        """A generation is complete."""
        self._state = state
        first = scales(self._recipe)[0]
        best = next(iter(state.front()), None)
        found = "" if best is None else f", best {first.title} {first.text(best)} {first.unit}"
        beyond = "" if record.hypervolume else " (no candidate is within the `worst` of every objective)"
        self._say(
            f"generation {record.index}: front of {len(record.front)}, hypervolume [bold]{record.hypervolume:.4f}[/]"
            f"{beyond}{found}, {record.evaluations} evaluated, {time.monotonic() - self._start:.0f} s"
        )

    # -- the screen ------------------------------------------------------------------------------------------

    def screen(self) -> RenderableType:
        """The live screen as it is now."""
        parts: list[RenderableType] = [Text()]
        if self._state is not None and self._state.generations:
            front = self._state.front()
            parts.append(front_table(front[:MOST_ROWS], scales(self._recipe)))
            if len(front) > MOST_ROWS:
                parts.append(Text(f"and {len(front) - MOST_ROWS} more", style="dim"))
            volumes = [record.hypervolume for record in self._state.generations]
            parts.append(Text.assemble("\nhypervolume ", (sparkline(volumes), "blue"), f" {volumes[-1]:.4f}"))
        line = Table.grid(padding=(0, 1))
        line.add_row(
            f"generation {self._generation} of {self._recipe.generations}",
            ProgressBar(total=max(self._all, 1), completed=self._done, width=24),
            f"{self._done} of {self._all}",
            f"{time.monotonic() - self._start:.0f} s",
        )
        parts.append(line)
        states = [state or "busy" for _, state in sorted(self._crew.states.items())]
        busy = ", ".join(states) if states else "idle"
        parts.append(Text(f"{self._workers()}: {busy}", style="dim"))
        if self._last is not None and self._last.status == "done":
            words = ", ".join(self._last.mutations) or "base"
            parts.append(Text(f"last: {self._last.number} {words}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    # -- before and after ------------------------------------------------------------------------------------

    def opening(self, folder: object, done: int) -> None:
        """What is going to happen."""
        recipe = self._recipe
        goals = ", ".join(scale.title for scale in scales(recipe))
        count = 1 + recipe.generations * recipe.offspring
        self._say(f"[bold]evolution[/] of {recipe.task.model} on {recipe.task.data}: {goals}")
        self._say(
            f"{counted(recipe.generations, 'generation')} of {recipe.offspring}, "
            f"{counted(count, 'candidate')}, {self._workers()}; "
            f"the study is {escape(str(folder))}"
        )
        if done:
            self._say(f"going on with a study of {counted(done, 'evaluation')}")

    def closing(self, state: State, found: Finished) -> None:
        """The front, and where everything is."""
        self._console.print()
        self._console.print(front_table(found.front, scales(self._recipe), found.stages))
        failed = state.generations[-1].failures
        self._say(f"\nfor equal weights: candidate [bold]{found.choice}[/]" + (f"; {failed} failed" if failed else ""))
        chosen = next(record for record in found.front if record.number == found.choice)
        for mutation in _ancestry(state, chosen):
            self._console.print(f"  {mutation}", style="cyan", highlight=False, markup=False, soft_wrap=True)
        self._say(f"[bold]files[/] in {escape(str(state.folder))}")
        self._say("  figures   front.png, lineage.png")
        self._say("  front/    each candidate: model (gg.load), ONNX, record")
        self._say(f"done in {time.monotonic() - self._start:.0f} s")

    def _workers(self) -> str:
        return counted(self._crew.size, "worker")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, emoji=False, soft_wrap=True)


def sparkline(values: Sequence[float]) -> str:
    """Numbers as bars of text, the largest the highest; the last sixty of them."""
    top = max(values, default=0.0) or 1.0
    return "".join(BARS[min(7, int(8 * max(value, 0.0) / top))] for value in values[-60:])


def _ancestry(state: State, record: CandidateRecord) -> list[str]:
    """The mutations that lead from the base to a candidate, first to last."""
    found: list[str] = []
    while True:
        found = [*record.mutations, *found]
        if not record.parents:
            return found
        record = state.results[record.parents[0], 0]
