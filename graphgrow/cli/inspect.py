"""`graphgrow inspect` and `graphgrow mutations`: what a model is, and how it could grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from graphgrow.cli.models import BaseOption, InputOption, JsonOption, ModelArgument, again, open_model
from graphgrow.cli.screen import console, show, show_json, show_text
from graphgrow.errors import Unsupported

if TYPE_CHECKING:
    from rich.table import Table

    from graphgrow.graph import Graph
    from graphgrow.network.groups import Group
    from graphgrow.rewrite.contract import Mutation


def inspect(
    model: ModelArgument,
    shape: InputOption = None,
    base: BaseOption = None,
    text: Annotated[bool, typer.Option("--text", help="Print the graph node by node, with all axes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what can grow in a model, what cannot, and why.

    For example:
    $ graphgrow inspect torchvision:resnet18
    $ graphgrow inspect my.package:build_model --input 2,3,64,64
    """
    graph = open_model(model, shape, base)
    if as_json:
        show_json(_facts(graph, model) | ({"text": graph.text()} if text else {}))
    elif text:
        show_text(graph.text())
    else:
        _explain(graph, model)
        show(f"\n[dim]next: graphgrow mutations {escape(again(model, shape, base))}[/]")


def mutations(
    model: ModelArgument,
    pass_name: Annotated[
        str | None, typer.Option("--pass", metavar="PASS", help="List this pass alone, such as widen.")
    ] = None,
    shape: InputOption = None,
    base: BaseOption = None,
    cost: Annotated[bool, typer.Option("--cost", help="Show how many parameters and FLOPs each one adds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the mutations that apply to a model, one a line, ready for `graphgrow grow`.

    With --pass, lines that begin with # say where the pass does not apply, and why.

    For example:
    $ graphgrow mutations graphgrow:vit --pass widen
    $ graphgrow mutations graphgrow:vit --cost
    """
    graph = open_model(model, shape, base)
    found = graph.mutations(pass_name)
    if as_json:
        costs = {"costs": [asdict(graph.cost(mutation)) for mutation in found]} if cost else {}
        refused = [{"pass": one.of, "site": one.site, "reason": one.reason} for one in found.refusals]
        show_json({"model": model, "mutations": [str(mutation) for mutation in found], "refusals": refused, **costs})
    elif cost:
        _price_list(graph, found)
    else:
        for mutation in found:
            show_text(str(mutation))
    if pass_name is not None and not as_json:
        for refusal in found.refusals:
            show_text(f"# not at {refusal.site}: {refusal.reason}")
        if not found and not found.refusals:
            show_text(f"# {pass_name} finds no place in this model")


def _price_list(graph: Graph, found: Iterable[Mutation]) -> None:
    """A line each as soon as it is known, the mutation at the end, where it is not cut and is easily copied."""
    millions = graph.flops >= 1_000_000
    show(f"[dim]{'parameters':>14}  {'MFLOPs' if millions else 'FLOPs':>12}  mutation[/]")
    for mutation in found:
        cost = graph.cost(mutation)
        flops = f"{cost.flops / 1e6:+,.3f}" if millions else f"{cost.flops:+,}"
        show_text(f"{cost.parameters:>+14,}  {flops:>12}  {mutation}")


def _facts(graph: Graph, model: str) -> dict[str, object]:
    return {
        "model": model,
        "class": type(graph.module).__name__,
        "parameters": graph.parameter_count,
        "flops": _flops(graph)[0],
        "inputs": [{"shape": list(spec.shape), "dtype": str(spec.dtype)[6:]} for spec in graph.inputs.tensors],
        "captured_with": graph.way,
        "modes": sorted(graph.modes),
        "notes": list(graph.notes),
        "ledger": [{"mutation": entry.mutation, "seed": entry.seed} for entry in graph.ledger],
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "written_by": list(group.members),
                "read_by": list(group.readers),
                "frozen": None if group.frozen is None else str(group.frozen),
            }
            for group in graph.groups
        ],
    }


def _explain(graph: Graph, model: str) -> None:
    """The graph for a person: a summary, what can grow, what cannot, and what else there is to know."""
    from graphgrow.network.describe import counted
    from graphgrow.rewrite.cost import flops_text

    flops, reasons = _flops(graph)
    work = "FLOPs unknown" if flops is None else f"{flops_text(flops)} for one sample"
    done = f", {counted(len(graph.ledger), 'mutation')} applied" if graph.ledger else ""
    shapes = ", ".join("x".join(map(str, spec.shape)) for spec in graph.inputs.tensors)
    modes = " and ".join(sorted(graph.modes))
    show(
        f"[bold]{escape(model)}[/]: {type(graph.module).__name__}, {graph.parameter_count:,} parameters, {work}",
        f"  captured with {graph.way} on {shapes}, valid in {modes} mode{done}",
        *(f"  [yellow]note[/] {escape(note)}" for note in (*graph.notes, *reasons)),
    )
    growing = [group for group in graph.groups if group.frozen is None]
    frozen = [group for group in graph.groups if group.frozen is not None]
    show(f"\n[bold]{counted(len(growing), 'channel group')} can grow[/]")
    if growing:
        rows = [(group, _writers(group.members), _writers(group.readers)) for group in growing]
        show(_table(("written by", "read by"), rows))
    if frozen:
        show(f"\n[bold]{len(frozen)} cannot[/]", _table(("why",), [(g, str(g.frozen)) for g in frozen]))
    if graph.analysis.unknown:
        show("\n[bold]operators that froze what they touch[/]")
        for text, nodes in _by_text(graph).items():
            show(f"  {escape(text)}: {_writers(nodes)}")


def _flops(graph: Graph) -> tuple[int | None, tuple[str, ...]]:
    """The FLOPs; None, with the reason, where they cannot be counted."""
    try:
        return graph.flops, ()
    except Unsupported as error:
        return None, (str(error),)


def _table(titles: tuple[str, ...], rows: Sequence[tuple[Group, *tuple[str, ...]]]) -> Table:
    """Groups with their sizes; a name is never cut, since it is what a mutation is written with."""
    from rich.table import Table

    named = max(len(group.name) for group, *_ in rows) + 2
    left = (console().width - named - 10) // len(titles) - 2
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    result.add_column("  group", no_wrap=True, min_width=named)
    result.add_column("units", justify="right", no_wrap=True, min_width=6)
    for title in titles:
        result.add_column(title, no_wrap=True, overflow="ellipsis", max_width=max(left, 12))
    for group, *cells in rows:
        result.add_row(f"  {escape(group.name)}", f"{group.size:,}", *map(escape, cells))
    return result


def _writers(paths: Sequence[str]) -> str:
    """One or two paths; of more the first, so that a cell is seldom cut."""
    from graphgrow.network.describe import some

    return some(paths, 2 if len(paths) == 2 else 1)


def _by_text(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, text in graph.analysis.unknown.items():
        found.setdefault(text, []).append(node.name)
    return found
