"""What ends a command that grows a model: a verdict, a folder, and what was done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from graphgrow.cli.models import again
from graphgrow.cli.screen import show, show_json, show_text, working
from graphgrow.errors import FolderError, NotPreserved

if TYPE_CHECKING:
    from graphgrow.graph import Graph

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is saved in --out already.")]


def require_free(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a saved model, unless it is to be replaced.

    Raises:
        FolderError: naming the folder and the option.
    """
    from graphgrow.store.folder import LEDGER_FILE

    if not overwrite and (out / LEDGER_FILE).exists():
        raise FolderError(f"a model is saved in {out} already; choose another --out, or add --overwrite to replace it")


def keep(graph: Graph, grown: Graph, out: Path, *, model: str, base: str | None, seed: int, as_json: bool) -> None:
    """Verify a grown graph against its parent, save it, and print the mutations, the verdict and what comes next.

    Args:
        graph: the parent.
        grown: what is saved.
        out: the folder.
        model: how the command line names the parent.
        base: as `BaseOption`.
        seed: of the verification's inputs.
        as_json: one JSON document instead of words.

    Raises:
        NotPreserved: if the verdict is not a plain yes; nothing is written then.
    """
    from graphgrow.store.folder import save
    from graphgrow.verification.verify import verify

    with working("verifying"):
        verdict = verify(graph, grown, seed=seed)
    if verdict.preserved is not True:
        raise NotPreserved(f"{verdict}\nnothing was saved; leave out the mutation at fault, or report it as a defect")
    save(grown, out)
    entries = list(grown.ledger)[len(graph.ledger) :]
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
