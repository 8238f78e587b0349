"""From what a command is given, a name, a factory or a saved folder, to a graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphgrow.cli.screen import working
from graphgrow.errors import ModelError

if TYPE_CHECKING:
    import torch

    from graphgrow.graph import Graph

_MODEL_HELP = "graphgrow:NAME, torchvision:NAME, timm:NAME, module:function, or a folder that `grow` wrote."

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help=_MODEL_HELP)]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Shape of the example input, such as 2,3,64,64, where the model does not bring one.",
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="FACTORY", help="For a folder: the module:function of the model that it was grown from."
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the fresh weights.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

WEIGHTS_SEED = 0


def open_model(model: str, shape: str | None = None, base: str | None = None) -> Graph:
    """The graph that a command-line argument means.

    A named model or factory is built with the weights of one fixed seed, so that it is the same in each command.
    The current folder is searched for the modules of factories.

    Raises:
        ModelError: if there is no such model, or its example input is not known.
        GraphGrowError: as capturing and loading do.
    """
    from graphgrow.store.folder import load
    from graphgrow.store.tracing import trace

    if Path(model).is_dir():
        if shape is not None:
            raise typer.BadParameter("a saved folder knows its inputs; leave --input out")
        with working(f"loading {model}"):
            return load(model, None if base is None else _build(base)[0])
    with working(f"capturing {model}"):
        module, example, named = _build(model)
        inputs = example if shape is None else _example(shape, example)
        if inputs is None:
            raise ModelError(f"{model} does not say what it is called with; add the shape, as --input 2,3,64,64")
        traced = trace(module, inputs, named)
    return _named(traced, model)


def again(model: str, shape: str | None, base: str | None) -> str:
    """The arguments that mean the same model in another command."""
    options = (("--input", shape), ("--base", base))
    return " ".join([model, *(f"{name} {value}" for name, value in options if value is not None)])


def base_of(graph: Graph, base: str | None) -> Graph:
    """The graph that a saved folder was grown from, with the weights that `open_model` gives it."""
    from graphgrow.store.tracing import trace

    name = base or graph.base
    assert name is not None  # no folder is opened whose base has no name, unless one is given
    args, kwargs = graph.inputs.sample()
    return _named(trace(_build(name)[0], args, kwargs), name)


def _build(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...] | None, dict[str, Any]]:
    import torch

    from graphgrow.store.names import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS_SEED)
        return build(name)


def _named(graph: Graph, name: str) -> Graph:
    from dataclasses import replace

    from graphgrow.store.names import KNOWN_SOURCES

    return replace(graph, base=name) if name.partition(":")[0] in KNOWN_SOURCES else graph


def _example(shape: str, like: tuple[torch.Tensor, ...] | None) -> torch.Tensor:
    """A random input of a shape; whole numbers where the model's own example has them."""
    import torch

    from graphgrow.ir.inputs import TensorSpec

    try:
        sizes = tuple(int(part) for part in shape.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(
            f"{shape!r} is no shape; give whole numbers from 1 on, as 2,3,64,64", param_hint="--input"
        )
    spec = TensorSpec.of(like[0]) if like else TensorSpec(sizes, torch.float32)
    order = "" if spec.order == "boxes" and sizes[-1] != 4 else spec.order
    return replace(spec, shape=sizes, order=order).sample(None, False, torch.Generator().manual_seed(WEIGHTS_SEED))
