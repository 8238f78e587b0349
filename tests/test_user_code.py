"""What else people write: captured as it is, grown by mutations drawn at random, pickled, saved and loaded."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from einops.layers.torch import Rearrange, Reduce
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import graphgrow as gg
from tests.preserved import assert_preserved

DRAWN = 4  # mutations of each model


class Written(nn.Module):
    """Parts by name, and a forward over them."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._run = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self, *args, **kwargs)


class Answer(NamedTuple):
    scores: torch.Tensor
    hidden: torch.Tensor


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


X = torch.linspace(-1.5, 2.0, 12).view(4, 3)
IMAGE = torch.linspace(-1.0, 1.5, 2 * 3 * 36).view(2, 3, 6, 6)


def _chain(m: Any, x: torch.Tensor) -> torch.Tensor:
    for weight, bias in zip(m.weights, m.biases, strict=True):
        x = torch.tanh(x @ weight + bias)
    return x


def _dictionary(m: Any, batch: dict[str, Any]) -> dict[str, Any]:
    hidden = torch.relu(m.a(batch["x"][0]) + m.b(batch["x"][1]))
    return {"scores": [m.c(hidden), m.d(hidden)], "mask": (batch["mask"] * 2,)}


def _keywords(m: Any, **given: Any) -> torch.Tensor:
    hidden = torch.relu(m.a(given["x"]))
    result: torch.Tensor = m.c(hidden * 2 if given.get("double") else hidden) + given["y"].sum()
    return result


def _stars(m: Any, x: torch.Tensor, *others: torch.Tensor, **given: Any) -> torch.Tensor:
    hidden = torch.relu(m.a(x))
    for other in others:
        hidden = hidden + other.mean()
    result: torch.Tensor = m.c(hidden) + given["y"].mean()
    return result


def _relative(m: Any, x: torch.Tensor) -> torch.Tensor:
    q = m.q(x).view(-1, 2, 3)
    bias = m.table[m.index.view(-1)].view(2, 2, 3).permute(2, 0, 1).mean(0)
    mixed = torch.softmax(q @ q.transpose(1, 2) + bias, -1) @ q
    result: torch.Tensor = m.out(mixed.flatten(1))
    return result


def _without_gradients(m: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        hidden = torch.relu(m.a(x))
    result: torch.Tensor = m.c(torch.relu(m.b(hidden)))
    return result


def _spectrum(m: Any, x: torch.Tensor) -> torch.Tensor:
    waves = torch.fft.rfft(m.a(x), dim=-1) * m.filter
    result: torch.Tensor = m.c(torch.relu(m.b(torch.fft.irfft(waves, n=6, dim=-1))))
    return result


def _rotated(m: Any, x: torch.Tensor) -> torch.Tensor:
    turned = torch.view_as_real(torch.view_as_complex(m.a(x).view(4, 3, 2)) * m.angles)
    result: torch.Tensor = m.c(torch.relu(m.b(turned.flatten(1))))
    return result


def three(*between: int) -> dict[str, nn.Module]:
    first, last = (between * 2)[:2]
    return {"a": nn.Linear(3, first), "b": nn.Linear(first, last), "c": nn.Linear(last, 2)}


# name -> model, positional example inputs, those by name, a group that must grow
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any], str]] = {
    "lists of parameters": (
        lambda: Written(
            _chain, weights=nn.ParameterList([weights(3, 5), weights(5, 4), weights(4, 2)]),
            biases=nn.ParameterList([weights(5), weights(4), weights(2)])),
        (X,), {}, "weights"),
    "a dictionary of parameters": (
        lambda: Written(
            lambda m, x: F.linear(torch.relu(F.linear(x, m.p["up"], m.p["bias"])), m.p["down"]),
            p=nn.ParameterDict({"up": weights(6, 3), "bias": weights(6), "down": weights(2, 6)})),
        (X,), {}, "p"),
    "dictionaries in and out": (
        lambda: Written(_dictionary, a=nn.Linear(3, 6), b=nn.Linear(3, 6), c=nn.Linear(6, 2), d=nn.Linear(6, 1)),
        ({"x": [X, X + 1], "mask": X},), {}, "a"),
    "all by keyword": (
        lambda: Written(_keywords, a=nn.Linear(3, 6), c=nn.Linear(6, 2)), (), {"x": X, "y": X, "double": True}, "a"),
    "stars and keywords": (lambda: Written(_stars, a=nn.Linear(3, 6), c=nn.Linear(6, 2)), (X, X), {"y": X}, "a"),
    "a named tuple out": (
        lambda: Written(lambda m, x: Answer(m.c(torch.relu(m.b(m.a(x)))), x), **three(6)), (X,), {}, "a"),
    "a weight and its transpose": (
        lambda: Written(lambda m, x: F.linear(torch.relu(m.a(x)), m.a.weight.t()), a=nn.Linear(3, 6)), (X,), {}, "a"),
    "one module at two places": (
        lambda: Written(lambda m, x: m.c(torch.relu(m.b(torch.relu(m.b(m.a(x)))))), **three(6)), (X,), {}, "a"),
    "a table by index": (
        lambda: Written(_relative, q=nn.Linear(3, 6), out=nn.Linear(6, 2), table=weights(4, 3),
                        index=torch.tensor([[0, 1], [2, 3]])),
        (X,), {}, ""),
    "a part without gradients": (lambda: Written(_without_gradients, **three(6)), (X,), {}, "a"),
    "a spectrum": (lambda: Written(_spectrum, **three(6, 5), filter=weights(4)), (X,), {}, "b"),
    "a complex buffer": (
        lambda: Written(_rotated, **three(6, 5), angles=torch.polar(torch.ones(3), torch.arange(3.0))), (X,), {}, "b"),
    "complex weights": (
        lambda: Written(
            lambda m, x: m.c(torch.relu(m.b(torch.view_as_real(m.a(x) * m.turn).flatten(1)))),
            a=nn.Linear(3, 3), b=nn.Linear(6, 5), c=nn.Linear(5, 2),
            turn=nn.Parameter(torch.polar(torch.ones(3), torch.arange(3.0)))),
        (X,), {}, "b"),
    "operators of ATen": (
        lambda: Written(lambda m, x: m.c(torch.relu(m.b(torch.ops.aten.tanh.default(m.a(x))))), **three(6, 5)),
        (X,), {}, "b"),
    "a forward that is called": (
        lambda: Written(lambda m, x: m.c(m.b.forward(m.a.forward(x)).relu()), **three(6)), (X,), {}, "a"),
    "synchronised norms": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.SyncBatchNorm(6), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        (IMAGE,), {}, "0"),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, gg.Graph]:
    torch.manual_seed(0)
    build, args, kwargs, _ = MODELS[name]
    model = build()
    return model, gg.trace(model, args, kwargs)


def answers(module: nn.Module, name: str) -> list[torch.Tensor]:
    _, args, kwargs, _ = MODELS[name]
    return [leaf for leaf in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", MODELS)
def test_it_grows_and_is_pickled_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, graph = built(name)
    for training in (True, False):
        found, wanted = (answers(part.train(training), name) for part in (graph.module, model))
        assert all(map(torch.equal, found, wanted))
    mutations = list(graph.mutations())
    group = MODELS[name][3]
    if group:
        assert any(str(mutation).startswith(f"widen({group}, ") for mutation in mutations), graph.explain()
    for mutation in random.Random(name).sample(mutations, min(DRAWN, len(mutations))):
        grown = gg.apply(graph, mutation, seed=1)
        if not grown.steps[-1].rounded:  # a mean of old rows rounds to float32, which the verdict takes into account
            assert_preserved(graph, grown)
        assert gg.verify(graph, grown, batch_sizes=()).preserved is True, str(mutation)
    stream = io.BytesIO()
    torch.save(grown.module, stream)
    stream.seek(0)
    gg.save(grown, tmp_path / "grown")
    base = MODELS[name][0]().train(model.training)
    for again in (torch.load(stream, weights_only=False), gg.load(tmp_path / "grown", base).module):
        assert all(map(torch.equal, answers(again, name), answers(grown.module, name)))


def test_another_process_loads_what_was_saved(tmp_path: Path) -> None:
    name = "dictionaries in and out"
    _, graph = built(name)
    grown = gg.apply(graph, "widen(a, extra=2)")
    gg.save(grown, tmp_path / "grown")
    torch.save(answers(grown.module, name), tmp_path / "answers.pt")
    code = f"""
import torch, graphgrow as gg
from tests.test_user_code import MODELS, answers
grown = gg.load({str(tmp_path / "grown")!r}, MODELS[{name!r}][0]()).module
assert all(map(torch.equal, answers(grown, {name!r}), torch.load({str(tmp_path / "answers.pt")!r})))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], timeout=120)


def test_without_data_the_structure_grows() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    graph = gg.trace(model, X.to("meta"))
    grown = gg.apply(graph, "widen(0, extra=2)")
    assert {tuple(p.shape) for p in grown.module.parameters()} == {(8, 3), (8,), (2, 8), (2,)}
    assert all(p.is_meta for p in grown.module.parameters())


def test_einops_is_written_as_anything_else() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), Rearrange("b c (h p) (w q) -> b (p q c) h w", p=2, q=2), nn.ReLU(),
        nn.Conv2d(24, 8, 1), Reduce("b c h w -> b c", "mean"), nn.Linear(8, 2),
    )  # fmt: skip
    graph = gg.trace(model, IMAGE)
    for text in ("widen(0, extra=2)", "split(0)", "widen(3, extra=2)", "split(3)"):
        assert_preserved(graph, gg.apply(graph, text))
