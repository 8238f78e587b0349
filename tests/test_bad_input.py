"""Bad input: each is refused with an error that says what was seen and what to do, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import graphgrow as gg


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


IMAGE = torch.zeros(2, 3, 8, 8)


class NoTensor(nn.Module):
    def forward(self, x: torch.Tensor) -> str:
        return "nothing"


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken inside")


class Items(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.mean().item()


class Many(nn.Module):
    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0]


def complex_net() -> nn.Module:
    model = net()
    model.register_parameter("phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    return model


# what is passed to gg.trace -> what the error says
CAPTURE: dict[str, tuple[Callable[[], Any], str]] = {
    "not a module": (lambda: (3, IMAGE), "wants an nn.Module, not int"),
    "no inputs": (lambda: (net(), None), "wants example inputs"),
    "inputs without a tensor": (lambda: (net(), ("text",)), "hold no tensor"),
    "an empty input": (lambda: (net(), torch.zeros(0, 3, 8, 8)), "is empty"),
    "too many inputs": (lambda: (net(), (IMAGE, IMAGE)), "do not fit"),
    "a wrong shape": (lambda: (net(), torch.zeros(2, 4, 8, 8)), r"fails on its own example inputs \(\(2, 4, 8, 8\)"),
    "a wrong dtype": (lambda: (net(), IMAGE.long()), "torch.int64"),
    "an unknown keyword": (lambda: (net(), IMAGE, {"nothing": 1}), "do not fit"),
    "no tensor out": (lambda: (NoTensor(), IMAGE), "returns no tensor but str"),
    "an error inside": (lambda: (Raises(), IMAGE), r"broken inside.*test_bad_input.py:\d+"),
    "values of tensors": (lambda: (Items(), IMAGE), r"test_bad_input.py:\d+.*item\(\)"),
    "inputs through a star": (lambda: (Many(), IMAGE), r"through \*tensors"),
    "a scripted model": (lambda: (torch.jit.script(net()), IMAGE), "scripted"),
    "weight_norm": (
        lambda: (nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3))), torch.zeros(1, 3)),
        "remove_parametrizations",
    ),
    "spectral_norm": (
        lambda: (nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 3))), torch.zeros(1, 3)),
        "remove_parametrizations",
    ),
    "a lazy layer": (lambda: (nn.Sequential(nn.LazyLinear(3)), torch.zeros(1, 3)), "call the model once"),
    "complex weights": (lambda: (complex_net(), IMAGE), "complex"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(CAPTURE))
def test_what_cannot_be_captured(name: str) -> None:
    build, message = CAPTURE[name]
    arguments = build()
    with pytest.raises(gg.CaptureError, match=message):
        gg.trace(*arguments)


# mutations -> what the error says
MUTATIONS: dict[str, tuple[Any, type[gg.GraphGrowError], str]] = {
    "an unknown pass": ("grow(0)", gg.MutationError, r"there are .*split, .*widen"),
    "no parentheses": ("widen", gg.MutationError, "cannot read 'widen'"),
    "an unknown group": ("widen(conv9, extra=1)", gg.MutationError, "no channel group `conv9`"),
    "a near miss": ("widen(00, extra=1)", gg.MutationError, "did you mean"),
    "an unknown option": ("widen(0, more=1)", gg.MutationError, "it has group, extra"),
    "an option twice": ("widen(0, extra=1, extra=2)", gg.MutationError, "twice"),
    "a missing option": ("widen(0)", gg.MutationError, "lacks extra"),
    "extra of zero": ("widen(0, extra=0)", gg.MutationError, "at least 1"),
    "a negative extra": ("widen(0, extra=-2)", gg.MutationError, "at least 1"),
    "an extra that is no number": ("widen(0, extra=many)", gg.MutationError, "wants int"),
    "a frozen group": ("widen(4, extra=1)", gg.Declined, "a model output"),
    "a unit out of range": ("split(0, units=[4])", gg.MutationError, "units 0 to 3"),
    "a negative unit": ("split(0, units=[-1])", gg.MutationError, "units 0 to 3"),
    "a unit twice": ("split(0, units=[1, 1])", gg.MutationError, "twice"),
    "a single copy": ("split(0, copies=1)", gg.MutationError, "at least 2"),
    "units without brackets": ("split(0, units=1)", gg.MutationError, "list in brackets"),
    "an open bracket": ("split(0, units=[1)", gg.MutationError, "bracket"),
    "an unknown site": ("deepen(9)", gg.MutationError, "there is no site `9`"),
    "a site that is near": ("deepen(00)", gg.MutationError, "did you mean"),
    "an unknown kind": ("deepen(2, kind=huge)", gg.MutationError, "there are auto, conv, mlp"),
    "a kind that does not fit": ("deepen(2, kind=mlp)", gg.Declined, r"does not fit maps of shape \(2, 4, 6, 6\)"),
    "tokens are wanted": ("deepen(2, kind=attention)", gg.Declined, "does not fit maps"),
    "nothing to copy": ("deepen(2, kind=copy)", gg.Declined, "through weights of its own"),
    "a negative width": ("deepen(2, kind=conv, hidden=-1)", gg.MutationError, "hidden=-1"),
    "a cycle": ("add-skip(2, target=0)", gg.Declined, "a cycle would arise"),
    "a skip to itself": ("add-skip(2, target=2)", gg.GraphGrowError, "itself"),
    "maps to features": ("add-skip(2, target=4)", gg.Declined, "cannot be added"),
    "no target": ("add-skip(2)", gg.MutationError, "lacks target"),
    "a branch beside a norm": ("add-branch(1)", gg.Declined, "no convolution or linear map"),
    "a branch of another kind": ("add-branch(0, kind=mlp)", gg.Declined, "does not fit a Conv2d"),
    "a gate between shapes": ("add-branch(0, kind=identity)", gg.Declined, r"\(2, 3, 8, 8\) and \(2, 4, 6, 6\)"),
    "a smaller kernel": ("enlarge-kernel(0, to=1)", gg.MutationError, r"has a kernel of \(3, 3\)"),
    "another parity": ("enlarge-kernel(0, to=4)", gg.Declined, "parity"),
    "a kernel of a linear map": ("enlarge-kernel(4, to=5)", gg.Declined, "no convolution"),
    "an unknown activation": ("swap-activation(2, to=blue)", gg.MutationError, "there are relu"),
    "the same activation": ("swap-activation(2, to=relu)", gg.MutationError, "one already"),
    "no activation": ("swap-activation(0, to=gelu)", gg.Declined, "no activation"),
    "nothing to settle": ("settle-activation(2)", gg.Declined, "no blend"),
    "a blend on its way": (
        ["swap-activation(2, to=gelu)", "settle-activation(2)"],
        gg.Declined,
        "share s of the new activation is 0",
    ),
    "two swaps of one": (
        ["swap-activation(2, to=gelu)", "swap-activation(2, to=silu)"],
        gg.Declined,
        "settle-activation first",
    ),
    "the second of two": (["widen(0, extra=1)", "widen(4, extra=1)"], gg.Declined, "a model output"),
}


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    slots = [id(p) for group in optimizer.param_groups for p in group["params"]]
    return [
        [t.detach().clone() for t in tensors],
        [t.clone() for t in states],
        slots,
        [m.training for m in model.modules()],
    ]


def same(first: list[Any], second: list[Any]) -> bool:
    tensors = all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(first[:2], second[:2], strict=True)
    )
    return tensors and first[2:] == second[2:]


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_what_cannot_be_applied_changes_nothing(name: str) -> None:
    mutations, error, message = MUTATIONS[name]
    model = net()
    graph = gg.trace(model, IMAGE)
    optimizer = torch.optim.AdamW(graph.module.parameters())
    graph.module(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    before = fingerprint(model, optimizer)
    with pytest.raises(error, match=message):
        gg.apply(graph, mutations, optimizer=optimizer)
    assert same(fingerprint(model, optimizer), before)


def test_an_unknown_optimizer_is_refused_and_unchanged() -> None:
    graph = gg.trace(net(), IMAGE)
    optimizer = torch.optim.Rprop(graph.module.parameters())
    with pytest.raises(gg.OptimizerError, match=r"known are Adagrad, Adam, AdamW, .*SGD"):
        gg.apply(graph, "widen(0, extra=1)", optimizer=optimizer)


def test_nan_weights_are_refused() -> None:
    model = net()
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(gg.Unsupported, match=r"`0.weight` holds NaN"):
        gg.apply(gg.trace(model, IMAGE), "widen(0, extra=1)")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(gg.MutationError, match="seed"):
        gg.apply(gg.trace(net(), IMAGE), "widen(0, extra=1)", seed=seed)


def test_a_model_on_meta_grows_in_structure_and_is_not_verified(tmp_path: Path) -> None:
    graph = gg.trace(net().to("meta"), IMAGE.to("meta"))
    grown = gg.apply(graph, ["widen(0, extra=2)", "split(0)"])
    assert grown.module.get_parameter("4.weight").shape == (5, 12 * 36)
    with pytest.raises(gg.NotPreserved, match="meta device"):
        gg.verify(graph, grown)
    with pytest.raises(gg.LedgerError, match="meta device"):
        gg.save(grown, tmp_path)


def test_every_error_is_a_graphgrow_error() -> None:
    errors = [
        value for name, value in vars(gg).items() if name.endswith("Error") or name in ("Declined", "Unsupported")
    ]
    assert len(errors) >= 10
    assert all(issubclass(error, gg.GraphGrowError) for error in errors)
