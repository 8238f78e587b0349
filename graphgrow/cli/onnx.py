"""`graphgrow export` and `graphgrow bench`: to ONNX, and how fast it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from graphgrow.cli.models import BaseOption, InputOption, JsonOption, ModelArgument, open_model
from graphgrow.cli.screen import show, show_json, show_text, working


def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="The file to write.")],
    opset: Annotated[int | None, typer.Option("--opset", min=1, help="Version of the ONNX operator set.")] = None,
    shape: InputOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model to ONNX; the file appears only if onnxruntime computes what torch does.

    For example:
    $ graphgrow export runs/wide -o runs/wide.onnx
    """
    from graphgrow.export import export_onnx

    graph = open_model(model, shape, base)
    with working("exporting, and comparing with onnxruntime"):
        record = export_onnx(graph, output, opset=opset)
    if as_json:
        show_json(record.to_json())
        return
    head, *rest = str(record).splitlines()
    show(f"[bold]{escape(str(output))}[/]{escape(head.removeprefix(record.path))}")
    for line in rest:
        show_text(line)
    if not Path(model).is_dir():
        show("  note: a name stands for freshly initialised weights; export a saved folder for trained ones")
    show(f"[dim]next: graphgrow bench {escape(str(output))}[/]")


def bench(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.onnx", show_default=False, help="Files to time.")],
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", metavar="SIZES", help="Separated by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed runs for each batch size.")] = 50,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of onnxruntime for each operator.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Time ONNX files with onnxruntime; two files are also compared, run in turns.

    For example:
    $ graphgrow bench runs/wide.onnx --batch-sizes 1,8
    $ graphgrow bench runs/demo/05-widen.onnx runs/demo/00-base.onnx
    """
    from graphgrow.bench import benchmark, compare

    sizes = _sizes(batch_sizes)
    compared = None
    with working("timing"):
        records = [benchmark(file, sizes, repeats=repeats, threads=threads) for file in files]
        if len(files) == 2:
            size = next((r.static_batch for r in records if r.static_batch is not None), sizes[0])
            compared = compare(files[0], files[1], size, repeats=repeats, threads=threads)
    if as_json:
        found = {"benchmarks": [record.to_json() for record in records]}
        show_json(found | ({"comparison": compared.to_json()} if compared else {}))
        return
    show_text("\n\n".join(map(str, records)))
    if compared is not None:
        show_text(f"\n{compared}")


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(f"{text!r}; give whole numbers from 1 on, as 1,8", param_hint="--batch-sizes")
    return sizes
