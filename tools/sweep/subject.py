"""The model of a row: built, captured at a small size, and described."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import graphgrow as gg
from graphgrow.store.names import KNOWN_SOURCES, build
from tools.sweep import home_made
from tools.sweep.home_made import HOME_MADE, build_home_made
from tools.sweep.options import Options
from tools.sweep.small_timm import SHORTENED, TIMM
from tools.sweep.small_transformers import TRANSFORMERS, build_small

SMALLEST, STEP = 64, 32
Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Subject:
    """A captured model.

    Attributes:
        name: as on the command line.
        model: what was captured.
        args: positional inputs that it was captured with.
        kwargs: and those by keyword.
        graph: the capture.
    """

    name: str
    model: nn.Module
    args: Inputs
    graph: gg.Graph
    kwargs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether `gg.load` can build it by name."""
        return self.name.partition(":")[0] in KNOWN_SOURCES and not self.options


def prepare(name: str, options: Options) -> Subject:
    """Build a model and capture it, at the smallest size that can be captured if that is asked for.

    Raises:
        ModelError: if there is no such model.
        CaptureError: if no size can be captured; the error of the last one, the model's own.
    """
    source, _, family = name.partition(":")
    if source == TRANSFORMERS:
        model, inputs = build_small(family, options.seed)
        model, kwargs = model.to(options.device), {key: value.to(options.device) for key, value in inputs.items()}
        return Subject(name, model, (), gg.trace(model, (), kwargs), kwargs)
    if source == HOME_MADE:
        if family not in home_made.names():
            raise gg.ModelError(f"there is no model {name!r}; there are {', '.join(home_made.names())}")
        made, given = build_home_made(family, options.seed)
        made, given = made.to(options.device), tuple(tensor.to(options.device) for tensor in given)
        return Subject(name, made, given, gg.trace(made, given))
    torch.manual_seed(options.seed)
    changed = SHORTENED.get(family, {}) if source == TIMM else {}
    model, example, _ = build(name, **changed)
    model = model.to(options.device)
    refusal: gg.CaptureError | None = None
    for args in candidates(name, example, options):
        on_device = tuple(arg.to(options.device) for arg in args)
        try:
            graph = _captured(model, on_device)
        except gg.CaptureError as error:
            refusal = error
            continue
        subject = Subject(name, model, on_device, graph, options=changed)
        return dataclasses.replace(subject, graph=dataclasses.replace(graph, base=name)) if subject.known else subject
    assert refusal is not None
    raise refusal


def _captured(model: nn.Module, args: Inputs) -> gg.Graph:
    """In eval mode where the model takes another path in train mode: that is the one that is exported and used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="this graph of")
        graph = gg.trace(model, args)
        return gg.trace(model.eval(), args) if graph.modes == {"train"} else graph


def candidates(name: str, example: Inputs | None, options: Options) -> Iterator[Inputs]:
    """The inputs to try to capture with, first to last.

    Raises:
        CaptureError: if the model has no example of its own and none was given.
    """
    generator = torch.Generator().manual_seed(options.seed)
    if options.input:
        yield (torch.randn(options.input, generator=generator),)
        return
    if example is None:
        raise gg.CaptureError(f"{name} has no example inputs of its own; give --input with their shape")
    if not _is_image(example):
        yield tuple(arg[torch.arange(options.batch) % len(arg)] for arg in example)
        return
    *_, own = example[0].shape
    for size in image_sizes(own, options.input_size):
        shape = (options.batch, *example[0].shape[1:-2], size, size)
        yield (torch.randn(shape, generator=generator),)


def image_sizes(own: int, wanted: str) -> list[int]:
    """Edge lengths to try, ascending: multiples of 32 from 64 up, and the model's own last.

    Args:
        own: the model's own.
        wanted: "small", "own" or a number.
    """
    if wanted == "small":
        return [*range(SMALLEST, own, STEP), own]
    return [own if wanted == "own" else int(wanted)]


def _is_image(example: Inputs) -> bool:
    """One tensor of floats, square in its last two axes: images, or videos."""
    first = example[0]
    return len(example) == 1 and first.is_floating_point() and first.dim() >= 4 and first.shape[-1] == first.shape[-2]


def describe(subject: Subject) -> dict[str, Any]:
    """How it was captured, how large it is, what can grow, and why the rest cannot."""
    graph = subject.graph
    free = {group.space for group in graph.groups if group.frozen is None}
    values = {value for value in graph.analysis.parameters.values() if not value.buffer}
    sizes = {value: math.prod(term.size for term in value.axes) for value in values}
    growing = sum(size for value, size in sizes.items() if any(value.axes_with(space) for space in free))
    shapes = " and ".join("x".join(map(str, arg.shape)) for arg in (*subject.args, *subject.kwargs.values()))
    return {
        "input": ", ".join([shapes, *(f"{name}={value}" for name, value in subject.options.items())]),
        "way": graph.way,
        "modes": " and ".join(sorted(graph.modes)),
        "nodes": len(graph.module.graph.nodes),
        "parameters": graph.parameter_count,
        "growable": growing / max(graph.parameter_count, 1),
        "frozen": dict(Counter(group.frozen.text for group in graph.groups if group.frozen)),
        "unknown": dict(Counter(graph.analysis.unknown.values())),
    }
