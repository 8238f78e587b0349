"""Capture one small model of each timm family and every torchvision model with torch.fx alone; print a Markdown table.

    python tools/zoo.py timm torchvision --mutations 2 > docs/zoo.md

Needs the extra `zoo` (pip install -e ".[zoo]"). Weights are random. Each model is captured on one sample of its own
input size, which compares graph and model in eval and in train mode; then some of its mutations are applied and
verified.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.store.names import import_torchvision

SMALLEST = (
    "test_", "atto", "femto", "pico", "nano", "zepto", "xxt", "xxs", "xtiny", "xs", "tiny", "mini", "_s0", "_m0", "_b0",
    "050", "small", "_s", "18", "26", "_b",
)  # fmt: skip
LARGEST = 120e6  # parameters; larger models are left out, and said to be


class Row(NamedTuple):
    """One model of the table."""

    family: str
    model: str
    parameters: float
    result: str
    open_groups: str = ""
    verified: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        size = f"{self.parameters / 1e6:.1f} M"
        cells = (self.family, self.model, size, self.result, self.open_groups, self.verified, f"{self.seconds:.1f}")
        return f"| {' | '.join(cells)} |"


def timm_models() -> Iterator[tuple[str, str, nn.Module, tuple[Any, ...], dict[str, Any]]]:
    """For each family its smallest model, by its name, with one sample."""
    import_torchvision()  # timm imports it, too
    import timm

    for family in sorted(timm.list_modules()):
        names = sorted(timm.list_models(module=family))
        if not names:
            continue
        part = next((part for part in SMALLEST if any(part in name for name in names)), "")
        name = min((name for name in names if part in name), key=len)
        model: Any = timm.create_model(name, pretrained=False)
        yield family, name, model, (torch.randn(1, *model.default_cfg["input_size"]),), {}


def torchvision_models() -> Iterator[tuple[str, str, nn.Module, tuple[Any, ...], dict[str, Any]]]:
    """Every model; of a detector its backbone, since what comes behind depends on the numbers."""
    models = import_torchvision().models
    for name in models.list_models():
        family = models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
        options = {"weights": None}
        if family.startswith(("segmentation", "detection")):
            options["weights_backbone"] = None
        model = models.get_model(name, **options)
        model = model.backbone if family.startswith("detection") else model
        yield family, name, model, *_sample(family, name)


def _sample(family: str, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if family.startswith("optical_flow"):
        return (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128)), {"num_flow_updates": 2}
    if family.startswith("video"):
        size = 224 if name.startswith(("mvit", "s3d")) else 64
        return (torch.randn(1, 3, 16, size, size),), {}
    size = 299 if "inception" in name else 300 if name.startswith("ssd") else 224
    return (torch.randn(1, 3, size, size),), {}


SOURCES = {"timm": timm_models, "torchvision": torchvision_models}


def row(family: str, name: str, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], mutations: int) -> Row:
    """Capture one model, and verify some of its mutations."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > LARGEST:
        return Row(family, name, parameters, "left out: too large")
    start = time.perf_counter()
    try:
        graph = gg.trace(model.eval(), args, kwargs, way="fx")
    except gg.GraphGrowError as error:
        return Row(family, name, parameters, f"refused: {error!s:.160}".replace("\n", " ").replace("|", "/"))
    seconds = time.perf_counter() - start
    groups = f"{sum(group.frozen is None for group in graph.groups)} of {len(graph.groups)}"
    return Row(family, name, parameters, " and ".join(sorted(graph.modes)), groups, verified(graph, mutations), seconds)


def verified(graph: Graph, count: int) -> str:
    """How many of some mutations, drawn from all, were seen to be preserved; and the others."""
    mutations = list(graph.mutations("widen"))
    chosen = random.Random(0).sample(mutations, min(count, len(mutations)))
    preserved, other = 0, []
    for mutation in chosen:
        verdict = gg.verify(graph, gg.apply(graph, mutation), batch_sizes=(1,))
        preserved += bool(verdict.preserved)
        other += [] if verdict.preserved else [f"{mutation}: {verdict.preserved}"]
    return " ".join([f"{preserved} of {len(chosen)}", *other])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", choices=sorted(SOURCES))
    parser.add_argument("--mutations", type=int, default=0, help="verify this many widenings of each model")
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| family | model | parameters | captured in | groups that can grow | verified | seconds to capture |")
    print("|---|---|---|---|---|---|---|")
    for source in options.sources:
        for example in SOURCES[source]():
            print(row(*example, options.mutations), flush=True)


if __name__ == "__main__":
    main()
