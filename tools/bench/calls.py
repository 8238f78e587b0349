"""What users call, each once on ordinary models: trace, list, grow, clean, verify, save and load.

    python tools/bench/calls.py --out docs/speed/calls.json
    python tools/bench/calls.py --against ../before --out docs/speed/calls.json

Every model is measured in processes of its own. With `--against`, a checkout with its own `.venv` and this file is
measured in turn with this one, so that both see the same machine, and a ratio is that of the processor times of one
pair. `import` is what graphgrow adds to torch, `widen` and `deepen` one mutation of that kind, `ten` as many widenings
in a list, `scale` all widths times 1.5, `clean` what a split network goes back through, `verify` that of `widen`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
MODELS = ("resnet18", "resnet50", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16", "bert", "gpt2", "llama")
CALLS = ("import", "trace", "mutations", "widen", "ten", "scale", "deepen", "clean", "verify", "save", "load")


def model(name: str) -> tuple[Any, Any, dict[str, Any] | None]:
    """A model with random weights, and its example inputs: two images of 224 pixels, or two texts of 64 tokens."""
    import torch

    from graphgrow.store.names import import_torchvision

    vision = import_torchvision()
    torch.manual_seed(0)
    if name in ("bert", "gpt2", "llama"):
        import transformers as hf

        made = {
            "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(attn_implementation="eager")),
            "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(use_cache=False)),
            "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(
                hidden_size=512, intermediate_size=1376, num_hidden_layers=12, num_attention_heads=8,
                num_key_value_heads=4, vocab_size=8000, use_cache=False,
            )),
        }[name]()  # fmt: skip
        return made, (), {"input_ids": torch.randint(0, 1000, (2, 64))}
    return getattr(vision.models, name)(), torch.randn(2, 3, 224, 224), None


def measure(name: str, threads: int) -> dict[str, float]:
    """Processor seconds of each call in this process, which has loaded torch before."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    found: dict[str, float] = {}

    def timed(call: str, run: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = run()
        found[call] = time.process_time() - start
        return result

    def load_all() -> Any:
        import graphgrow

        graphgrow.trace, graphgrow.verify  # noqa: B018  # loaded when first asked for
        return graphgrow

    gg = timed("import", load_all)
    built, args, kwargs = model(name)
    graph = timed("trace", lambda: gg.trace(built, args, kwargs))
    listed = timed("mutations", lambda: list(graph.mutations()))
    by_pass = {kind: [m for m in listed if str(m).startswith(f"{kind}(")] for kind in ("widen", "split", "deepen")}
    widen, split, deepen = (each[len(each) // 2] for each in by_pass.values())
    grown = timed("widen", lambda: gg.apply(graph, widen))
    timed("ten", lambda: gg.apply(graph, by_pass["widen"][:10]))
    timed("scale", lambda: gg.scale(graph, width=1.5))
    timed("deepen", lambda: gg.apply(graph, deepen))
    copied = gg.apply(graph, split)
    timed("clean", lambda: gg.clean(copied))
    verdict = timed("verify", lambda: gg.verify(graph, grown))
    assert verdict.preserved, verdict
    with tempfile.TemporaryDirectory() as folder:
        timed("save", lambda: gg.save(grown, f"{folder}/grown"))
        timed("load", lambda: gg.load(f"{folder}/grown", model=built))
    return found


def in_child(tree: Path, name: str, threads: int) -> dict[str, float]:
    """The same in a new process, with the graphgrow of a checkout."""
    own = tree / ".venv" / "bin" / "python"
    command = [str(own if own.exists() else sys.executable), str(tree / "tools" / "bench" / "calls.py")]
    command += ["--child", name, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


def row(name: str, against: Path | None, repeats: int, threads: int) -> dict[str, Any]:
    """Median processor seconds of each call, and its ratio to that of the other checkout: median, least and most."""
    pairs = []
    for _ in range(repeats):
        before = None if against is None else in_child(against, name, threads)
        pairs.append((before, in_child(ROOT, name, threads)))
    found: dict[str, Any] = {"key": f"{name}, {threads}", "model": name, "threads": threads, "repeats": repeats}
    for call in CALLS:
        found[call] = {"cpu": median(after[call] for _, after in pairs)}
        ratios = [after[call] / before[call] for before, after in pairs if before is not None]
        if ratios:
            found[call] |= {"ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
    return found


def times(rows: list[dict[str, Any]]) -> str:
    """Seconds, without ratios."""
    from tools.bench.results import seconds, table

    shown = [[row["key"], *(seconds(row[call]["cpu"]) for call in CALLS)] for row in rows]
    return table(["CPU time; model, threads", *CALLS], shown)


def show(rows: list[dict[str, Any]]) -> str:
    """Seconds, and ratios where another checkout was measured in turn."""
    from tools.bench.results import table

    ratios = [
        [row["key"], *(_ratio(row[call], row["repeats"]) for call in CALLS)] for row in rows if "ratio" in row[CALLS[0]]
    ]
    tables = [times(rows)]
    if ratios:
        tables.append(table(["after / before", *CALLS], ratios))
    return "\n\n".join(tables)


def _ratio(found: dict[str, float], repeats: int) -> str:
    """A ratio, and the least and the most of several."""
    return "{ratio:.2f}".format(**found) + (" ({least:.2f} to {most:.2f})".format(**found) if repeats > 1 else "")


def main() -> None:
    """Read the command line, run, write."""
    if "--child" in sys.argv:
        name, threads = sys.argv[sys.argv.index("--child") + 1], sys.argv[sys.argv.index("--threads") + 1]
        print(json.dumps(measure(name, int(threads))))
        return
    from tools.bench.results import finish, parser

    options = parser(__doc__)
    options.add_argument("models", nargs="*", default=list(MODELS))
    options.add_argument("--against", type=Path, help="a checkout of other sources")
    options.add_argument("--repeats", type=int, default=3)
    parsed = options.parse_args()
    against = parsed.against and parsed.against.resolve()
    rows = [row(name, against, parsed.repeats, parsed.threads) for name in parsed.models]
    parsed.against = None if against is None else against.name
    finish(parsed, rows, "key", show)


if __name__ == "__main__":
    main()
