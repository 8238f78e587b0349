"""`graphgrow inspect` and `graphgrow mutations`: what a model is, and how it could grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from graphgrow.cli.models import BaseOption, InputOption, JsonOption, ModelArgument, open_model
from graphgrow.cli.screen import show, show_json, show_text

if TYPE_CHECKING:
    from rich.table import Table

    from graphgrow.graph import Graph


def inspect(
    model: ModelArgument,
    shape: InputOption = None,
    base: BaseOption = None,
    text: Annotated[bool, typer.Option("--text", help="Print the graph node by node, with all axes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what can grow in a model, what cannot, and why.

    \b
      graphgrow inspect torchvision:resnet18
      graphgrow inspect my.package:build_model --input 2,3,64,64
    """
    graph = open_model(model, shape, base)
    if as_json:
        show_json(_facts(graph, model) | ({"text": graph.text()} if text else {}))
    elif text:
        show_text(graph.text())
    else:
        _explain(graph, model)


def mutations(
    model: ModelArgument,
    pass_name: Annotated[
        str | None, typer.Option("--pass", metavar="PASS", help="Of this pass alone, as widen.")
    ] = None,
    shape: InputOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the mutations that apply to a model, one a line, ready for `graphgrow grow`.

    \b
      graphgrow mutations graphgrow:vit --pass widen
    """
    found = [str(mutation) for mutation in open_model(model, shape, base).mutations(pass_name)]
    if as_json:
        show_json({"model": model, "mutations": found})
        return
    for line in found:
        show_text(line)


def _facts(graph: Graph, model: str) -> dict[str, object]:
    from graphgrow.stage.cost import count_flops

    return {
        "model": model,
        "class": type(graph.module).__name__,
        "parameters": graph.parameter_count,
        "flops": count_flops(graph),
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
    ...
