"""The entry point `graphgrow`: its commands, and what becomes of errors."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from graphgrow import __version__
from graphgrow.cli import demo, evolve, grow, inspect, onnx, scale, search, train, verify
from graphgrow.cli.screen import complain, show_text
from graphgrow.errors import GraphGrowError


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    """The same parameters; the help of a flag that takes no value names no type of one."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """One command, whose help is plain."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The arguments and options, --help among them."""
        return _without_types_of_flags(super().get_params(ctx))


class Commands(TyperGroup):
    """Turns an error into one message on standard error and the exit code 1, unless --debug asks for the traceback."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, --help among them."""
        return _without_types_of_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted", "")
            raise typer.Exit(130) from None
        except GraphGrowError as error:
            if ctx.params.get("debug"):
                raise
            complain("error", str(error))
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            pipe_closed = isinstance(error, OSError) and error.errno == errno.EPIPE
            if ctx.params.get("debug") or pipe_closed:
                raise
            complain(
                "unexpected error",
                f"{type(error).__name__}: {error}\nThis may be a defect of graphgrow; graphgrow --debug shows where.",
            )
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _help(command: Callable[..., None]) -> str:
    """A docstring as help text: each paragraph on one line, to be wrapped to the terminal, and each example on its."""
    return re.sub(r"(?<!\n)\n(?![\n$])", " ", cleandoc(command.__doc__ or ""))


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Grow a model": (inspect.inspect, inspect.mutations, grow.grow, scale.scale, verify.verify),
    "Hand it on": (onnx.export, onnx.bench),
    "Train and search": (demo.demo, train.train, evolve.evolve, search.search),
}
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(cls=Command, help=_help(command), rich_help_panel=panel)(command)


def _version(wanted: bool) -> None:
    if wanted:
        show_text(f"graphgrow {__version__}")
        raise typer.Exit


def start(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Change the architecture of a trained torch model without changing what it computes.

    A first walk, from a model by name to a grown, verified and timed ONNX file:
    $ graphgrow inspect graphgrow:resnet
    $ graphgrow mutations graphgrow:resnet --pass widen
    $ graphgrow grow graphgrow:resnet "widen(stem, extra=8)" --out runs/wide
    $ graphgrow verify runs/wide
    $ graphgrow export runs/wide -o runs/wide.onnx
    $ graphgrow bench runs/wide.onnx

    Exit codes: 0 done, 1 refused or not preserved, 2 wrong usage, 130 interrupted.
    """
    here = str(Path.cwd())  # models and data by `module:name` may lie in the folder of the call
    if here not in sys.path:
        sys.path.append(here)


app.callback(help=_help(start))(start)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
