"""Apply and verify the mutations of every pass on many models; write the outcome as a table and as JSON.

    python tools/coverage.py --families classification segmentation graphgrow --sites 6 --seed 0 --out docs/coverage.md
    python tools/coverage.py graphgrow:resnet torchvision:resnet18 --out /tmp/coverage.md
    python tools/coverage.py --families timm transformers torchvision --sites 1 --chain 0 --out docs/zoo.md
    python tools/coverage.py --again --out docs/zoo.md

Each model runs in a process of its own, within limits of time and memory; one that fails or is stopped is a row with
its reason and with what was found by then. Both files are written after each model. A second call with the same
options skips what is complete and was made with the same sources; rows of other models are kept. `--again` makes the
rows of older sources anew, each with the options that it was made with, the cheapest first. A row that is interrupted
replaces none that is complete.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

# Above the script's own folder, whose `coverage` would hide the package of that name.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import graphgrow as gg
from graphgrow.errors import GraphGrowError
from tools.sweep.names import chosen
from tools.sweep.options import Limits, Options
from tools.sweep.results import read_rows, to_do, to_make_again, write_row, write_rows
from tools.sweep.supervise import INTERRUPTED, run_model
from tools.sweep.table import chain_words, summary
from tools.sweep.versions import versions_by_model, versions_for


def main() -> None:
    """Read the command line and sweep."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parsed = parser().parse_args()
    names = [field.name for field in dataclasses.fields(Options)]
    options = Options(**{name: getattr(parsed, name) for name in names})
    try:
        models = chosen(parsed.models, parsed.families) or (list(read_rows(parsed.out)) if parsed.again else [])
        if not models:
            raise SystemExit("name models, or --families")
        sweep(models, options, Limits(parsed.timeout, parsed.memory), parsed)
    except GraphGrowError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


def sweep(models: list[str], options: Options, limits: Limits, parsed: argparse.Namespace) -> None:
    """Make the rows that are missing, or are to be made again, one after the other."""
    rows = read_rows(parsed.out)
    today = {} if parsed.keep_stale else versions_by_model(models)
    if parsed.again:
        old = to_make_again({name: rows[name] for name in models if name in rows}, versions_by_model(models))
        turns = [(row.model, Options.from_json(row.options)) for row in old]
    else:
        turns = [(name, options) for name in to_do(models, rows if parsed.resume else {}, options, today)]
    print(f"{len(turns)} of {len(models)} models to do", flush=True)
    for number, (name, its_options) in enumerate(turns, 1):
        print(f"[{number}/{len(turns)}] {name} ...", flush=True)
        row = run_model(name, its_options, limits, versions_for(name))
        if not (row.stopped.startswith(INTERRUPTED) and name in rows and rows[name].complete):
            write_row(row, parsed.out)
        state = row.failure or row.stopped or chain_words(row.chain)
        counts = f"{row.count('preserved')} of {row.count()} preserved"
        print(f"    {counts}, {'WRONG, ' if row.wrong else ''}{row.seconds:.0f} s: {state}", flush=True)
        if row.stopped.startswith(INTERRUPTED):
            raise SystemExit(f"interrupted; the same command goes on from here, {parsed.out} is written")
    rows = read_rows(parsed.out)
    write_rows(rows, parsed.out)
    print(summary([rows[name] for name in models if name in rows]))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default, limits = Options(), Limits()
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("models", nargs="*", help="graphgrow:, torchvision:, timm:, transformers:NAME, package.module:factory")
    add(
        "--families",
        nargs="*",
        default=[],
        metavar="FAMILY",
        help="graphgrow, home-made, transformers, timm, torchvision, classification, segmentation, ...",
    )
    add("--out", type=Path, required=True, help="Markdown file; a JSON file goes beside it")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="skip what is complete")
    add("--again", action="store_true", help="make rows of older sources anew, with their own options")
    add("--keep-stale", action="store_true", help="complete rows from other sources or versions count as well")
    add("--timeout", type=float, default=limits.timeout_s, help="seconds for each model")
    add("--memory", type=float, default=limits.memory_gib, help="GiB for each model (0: no limit)")
    add("--passes", type=_passes, default=default.passes, help="names of passes, by commas; all; or nothing")
    add("--sites", type=int, default=default.sites, help="mutations of each pass to try (0: all)")
    add("--seed", type=int, default=default.seed)
    add("--input-size", type=_size, default=default.input_size, help="small, own, or a number")
    add("--input", type=_numbers, default=default.input, help="shape of a normal input, for instance 2,3,64,64")
    add("--batch", type=int, default=default.batch, help="batch size of the example inputs")
    add("--batch-sizes", type=_numbers, default=default.batch_sizes, help="verified in eval mode besides the example's")
    add("--onnx", type=int, default=default.onnx, help="tried mutations of each model to export")
    add("--chain", type=int, default=default.chain, help="mutations in the chain")
    add("--chain-verify", choices=("every", "end"), default=default.chain_verify)
    add("--growth", type=float, default=default.growth, help="the chain's largest size, in multiples of the model's")
    add("--device", default=default.device)
    return made


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def _passes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else ()
    if unknown := [name for name in names if name not in ("all", *gg.pass_names())]:
        raise argparse.ArgumentTypeError(
            f"there is no pass {', '.join(unknown)}; there are {', '.join(gg.pass_names())}"
        )
    return names


def _size(text: str) -> str:
    if text in ("small", "own") or (text.isdecimal() and int(text)):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither small nor own nor a number of pixels")


if __name__ == "__main__":
    main()
