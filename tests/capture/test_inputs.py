"""Inputs and outputs of any structure: a grown model is called as the original is, and answers in kind."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import graphgrow as gg
from graphgrow.capture.trace import capture
from graphgrow.graph import Graph
from graphgrow.store.inputs import inputs_from_data, inputs_to_data

Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass(frozen=True)
class Record:
    a: Any
    b: Any = None
    number: int = 3


@dataclasses.dataclass
class Output(OrderedDict):  # type: ignore[type-arg]  # as transformers' ModelOutput: a dictionary with fields
    logits: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(3, 8)

    def join(self, x: Any, y: Any) -> Any:
        return self.b(torch.relu(self.a(x)) + self.c(y))


class OneInput(Base):
    def __init__(self, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self._run = run

    def forward(self, data: Any) -> Any:
        return self._run(self, data)


class Star(Base):
    def forward(self, *xs: Any) -> Any:
        return self.join(xs[0], sum(xs[1:]))


class Options(Base):
    def forward(self, x: Any, **options: Any) -> Any:
        return self.join(x, options["y"])


class Both(Base):
    def forward(self, x: Any, *rest: Any, **options: Any) -> Any:
        return self.join(x, rest[0]) * options.get("scale", 2.0)


class KeywordOnly(Base):
    def forward(self, x: Any, *, y: Any, flip: bool = False, scale: float = 1.0) -> Any:
        out = self.join(x, y) * scale
        return -out if flip else out


class Maybe(Base):
    def forward(self, x: Any, y: Any = None, mode: str = "plain") -> Any:
        out = self.b(self.a(x)) if y is None else self.join(x, y)
        return out if mode == "plain" else {"out": out, "mode": mode}


def _unpacked(m: Any, xs: Any) -> Any:
    x, y = xs
    return m.join(x, y)


def _items(m: Any, d: Any) -> Any:
    return m.b(sum(m.a(value) for _, value in sorted(d.items())))


def _optional_keys(m: Any, d: Any) -> Any:
    out = m.a(d["x"]) + (m.c(d["y"]) if "y" in d else 0)
    return m.b(out) if d.get("mask") is None else m.b(out) * d["mask"]


def two(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3), torch.randn(count, 3)


Inputs = tuple[tuple[Any, ...], dict[str, Any]]
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Any], Inputs]]] = {
    "a list": (lambda: OneInput(lambda m, xs: m.join(*xs)), lambda x, y: (([x, y],), {})),
    "a tuple by name": (lambda: OneInput(_unpacked), lambda x, y: ((), {"data": (x, y)})),
    "a dict": (lambda: OneInput(lambda m, d: {"out": m.join(d["x"], d["y"]), "len": len(d)}),
               lambda x, y: (({"x": x, "y": y},), {})),
    "items of a dict": (lambda: OneInput(_items), lambda x, y: (({"y": y, "x": x},), {})),
    "keys that may be absent": (lambda: OneInput(_optional_keys), lambda x, y: (({"x": x, "mask": None},), {})),
    "nested": (lambda: OneInput(lambda m, d: m.join(d["in"]["x"], d["in"]["ys"][0])),
               lambda x, y: (({"in": {"x": x, "ys": [y, 1.5]}},), {})),
    "a named tuple": (lambda: OneInput(lambda m, p: Pair(m.join(p.a, p.b), p.a)), lambda x, y: ((Pair(x, y),), {})),
    "a dataclass": (lambda: OneInput(lambda m, r: Record(m.join(r.a, r.b), number=r.number)),
                    lambda x, y: ((Record(x, y, 7),), {})),
    "an ordered dict": (lambda: OneInput(lambda m, d: OrderedDict(z=m.join(d["x"], d["y"]), a=d["x"])),
                        lambda x, y: ((OrderedDict(x=x, y=y),), {})),
    "*args": (Star, lambda x, y: ((x, y, x), {})),
    "**kwargs": (Options, lambda x, y: ((x,), {"y": y})),
    "both": (Both, lambda x, y: ((x, y), {"scale": 3.0})),
    "both, one empty": (Both, lambda x, y: ((x, y), {})),
    "keywords only": (KeywordOnly, lambda x, y: ((x,), {"y": y, "flip": True, "scale": 0.5})),
    "an input left out": (Maybe, lambda x, y: ((x,), {})),
    "an input that is None": (Maybe, lambda x, y: ((x, None), {"mode": "dict"})),
    "by position": (Maybe, lambda x, y: ((x, y, "dict"), {})),
    "an output with fields": (lambda: OneInput(lambda m, x: Output(logits=m.b(m.a(x)))), lambda x, y: ((x,), {})),
    "plain values out": (lambda: OneInput(lambda m, x: (m.b(m.a(x)), None, 2.5, "text", [True, {"n": x.shape[1]}])),
                         lambda x, y: ((x,), {})),
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def traced(name: str) -> tuple[nn.Module, Graph, Callable[[Any, Any], Inputs]]:
    build, inputs = CASES[name]
    model = build()
    args, kwargs = inputs(*two())
    found = capture(model, args, kwargs, way="fx")
    return model, Graph(found.module, found.inputs, modes=found.modes), inputs


@pytest.mark.parametrize("name", CASES)
def test_a_grown_model_is_called_as_the_original_is(name: str) -> None:
    model, graph, inputs = traced(name)
    grown = gg.apply(graph, "widen(a, extra=2)")
    for count in (4, 5):
        args, kwargs = inputs(*two(count))
        wanted = model(*args, **kwargs)
        assert same(graph.module(*args, **kwargs), wanted)
        assert same(grown.module(*args, **kwargs), wanted)


@pytest.mark.parametrize("name", ["a list", "nested", "*args", "both", "a dataclass"])
def test_structures_are_verified(name: str) -> None:
    _, graph, _ = traced(name)
    assert gg.verify(graph, gg.apply(graph, "widen(a, extra=2)")).preserved


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "words"),
    [
        ("a list", ([torch.zeros(4, 3)] * 3,), {}, r"data of the form \[\*, \*\], not \[\*, \*, \*\]"),
        ("a list", ((torch.zeros(4, 3), torch.zeros(4, 3)),), {}, r"not \(\*, \*\)"),
        ("keys that may be absent", ({"x": torch.zeros(4, 3), "y": torch.zeros(4, 3), "mask": None},), {}, "'y': "),
        ("nested", ({"in": {"x": torch.zeros(4, 3), "ys": [torch.zeros(4, 3), 2.5]}},), {}, "2.5"),
        ("a dataclass", (Record(torch.zeros(4, 3), torch.zeros(4, 3), 8),), {}, "number=8"),
        ("*args", (torch.zeros(4, 3), torch.zeros(4, 3)), {}, r"xs of the form"),
        ("both", (torch.zeros(4, 3), torch.zeros(4, 3)), {"scale": 4.0}, r"options of the form"),
    ],
)
def test_another_form_than_that_of_the_capture_is_refused(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    _, graph, _ = traced(name)
    with pytest.raises(ValueError, match=words):
        graph.module(*args, **kwargs)


@pytest.mark.parametrize("name", ["a list", "nested", "*args", "both"])
def test_a_grown_model_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, graph, inputs = traced(name)
    gg.save(gg.apply(graph, "widen(a, extra=2)"), tmp_path / "grown")
    args, kwargs = inputs(*two())
    assert same(gg.load(tmp_path / "grown", model).module(*args, **kwargs), model(*args, **kwargs))


class Bags(nn.Module):
    """Two tables of bags, each with the offsets of its bags beside its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList([nn.EmbeddingBag(9, 4), nn.EmbeddingBag(7, 4, mode="sum")])
        self.dense, self.out = nn.Linear(3, 6), nn.Linear(14, 2)

    def forward(self, x: torch.Tensor, ids: list[torch.Tensor], offsets: list[torch.Tensor]) -> torch.Tensor:
        found = [bag(i, o) for bag, i, o in zip(self.bags, ids, offsets, strict=True)]
        result: torch.Tensor = self.out(torch.cat([self.dense(x), *found], 1))
        return result


def test_numbers_that_rise_are_drawn_so(tmp_path: Path) -> None:
    """Offsets begin with 0 and never fall: others are refused by the model itself."""
    torch.manual_seed(0)
    ids = [torch.tensor([3, 1, 8, 0, 2]), torch.tensor([5, 0, 6])]
    offsets = [torch.tensor([0, 3]), torch.tensor([0, 1])]
    model = Bags()
    graph = gg.trace(model, (torch.randn(2, 3), ids, offsets))
    grown = gg.apply(graph, "widen(dense, extra=2)")
    assert gg.verify(graph, grown).preserved
    gg.save(grown, tmp_path / "grown")
    for spec in (graph.inputs, gg.load(tmp_path / "grown", model).inputs):
        assert [leaf.order for leaf in spec.tensors] == ["", "", "", "rising", "rising"]
        _, _, (first, second) = spec.sample(1, 5)[0]
        for drawn, high in ((first, 3), (second, 1)):
            assert drawn.shape == (5,)
            assert drawn[0] == 0
            assert (drawn.diff() >= 0).all()
            assert drawn.max() <= high


class Sorted(nn.Module):
    """Sequences of whose lengths torch itself wants that they fall."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cells, self.out = nn.Embedding(9, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states, _ = pad_packed_sequence(
            self.cells(pack_padded_sequence(self.embed(tokens), lengths, batch_first=True))[0], batch_first=True
        )
        result: torch.Tensor = self.out(states)
        return result


def test_numbers_that_fall_are_drawn_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, lengths = Sorted(), torch.tensor([6, 4, 4, 1])
    graph = gg.trace(model, (torch.randint(0, 9, (4, 6)), lengths))
    grown = gg.apply(graph, "widen(cells, extra=2)")
    assert gg.verify(graph, grown).preserved
    gg.save(grown, tmp_path / "grown")
    for spec in (graph.inputs, gg.load(tmp_path / "grown", model).inputs):
        assert [leaf.order for leaf in spec.tensors] == ["", "falling"]
        drawn = spec.sample(1, 9)[0][1]
        assert drawn.shape == (9,)
        assert drawn[0] == 6
        assert (drawn.diff() <= 0).all()
        assert drawn.min() >= 1


class Placed(nn.Module):
    """Tokens with the widths and heights of their boxes, as LayoutLM embeds them."""

    def __init__(self) -> None:
        super().__init__()
        self.side, self.out = nn.Embedding(30, 4), nn.Linear(4, 2)

    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
        result: torch.Tensor = self.out(self.side(width) + self.side(height))
        return result


def test_boxes_are_drawn_with_their_corners_in_order(tmp_path: Path) -> None:
    """A negative width is no index: LayoutLM could not be verified."""
    torch.manual_seed(0)
    corners = torch.randint(0, 10, (2, 7, 2))
    model, boxes = Placed(), torch.cat([corners, corners + torch.randint(0, 10, (2, 7, 2))], -1)
    graph = gg.trace(model, boxes)
    grown = gg.apply(graph, "widen(side, extra=2)")
    assert gg.verify(graph, grown).preserved
    gg.save(grown, tmp_path / "grown")
    (spec,) = gg.load(tmp_path / "grown", model).inputs.tensors
    assert spec.order == "boxes"
    drawn = spec.sample(50, True, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 7, 4)
    assert bool((drawn[..., :2] <= drawn[..., 2:]).all())


def _doubling(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper that takes anything, reads one keyword and changes the answer, as decorators of libraries do."""

    @functools.wraps(forward)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        twice = kwargs.pop("twice", False)
        answer = forward(self, *args, **kwargs)
        return answer * 2 if twice else answer

    return wrapped


class Wrapped(Base):
    @_doubling
    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None, *, scale: float = 1.0, **more: Any) -> Any:
        return self.join(x, x if y is None else y) * scale + more.get("shift", 0.0)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((), {"y": torch.randn(4, 3)}),
        ((torch.randn(4, 3),), {"scale": 3.0}),
        ((), {"twice": True, "shift": torch.randn(4, 2)}),
    ],
)
def test_a_forward_behind_a_wrapper_is_called_through_it(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    model, x = Wrapped(), torch.randn(4, 3)
    graph = gg.trace(model, (x, *args), kwargs, way="fx")
    child = gg.apply(graph, "widen(a, extra=3)")
    assert torch.equal(graph.module(x, *args, **kwargs), model(x, *args, **kwargs))
    torch.testing.assert_close(child.module(x, *args, **kwargs), model(x, *args, **kwargs))


def test_a_graph_takes_no_keywords_that_it_was_not_captured_with() -> None:
    """The Trainer of transformers, for one, gives a number to whatever takes keywords of any name."""
    graph = gg.trace(Wrapped(), torch.randn(4, 3), way="fx")
    kinds = [parameter.kind for parameter in inspect.signature(graph.module.forward).parameters.values()]
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    with pytest.raises(TypeError, match="shift"):
        graph.module(torch.randn(4, 3), shift=1.0)


class Propagated(nn.Module):
    """A graph convolution: edges are weighted by the roots of what meets in each node."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        roots = (edges + torch.eye(edges.shape[-1], dtype=edges.dtype)).sum(-1, keepdim=True).rsqrt()
        edges = roots * edges * roots.transpose(-2, -1)
        return torch.as_tensor(edges @ self.last(torch.relu(edges @ self.first(x))))


@pytest.mark.parametrize(("scale", "order"), [(1.0, "unit"), (7.0, "positive")])
def test_numbers_that_have_no_sign_are_drawn_without_one(scale: float, order: str) -> None:
    torch.manual_seed(0)
    edges = scale * (torch.rand(2, 4, 4) > 0.5).double()
    graph = gg.trace(Propagated().double(), (torch.randn(2, 4, 3).double(), edges))
    spec = graph.inputs
    assert [leaf.order for leaf in spec.tensors] == ["", order]
    assert inputs_from_data(inputs_to_data(spec)).tensors == spec.tensors
    (x, drawn), _ = spec.sample(3)
    assert bool((x < 0).any())
    assert bool((drawn >= 0).all())
    assert bool((drawn <= 1).all()) is (order == "unit")
    verdict = gg.verify(graph, gg.apply(graph, "widen(first, extra=2)"), modes=("eval", "train", "extremes"))
    assert verdict.preserved is True, str(verdict)
