"""Weights that are computed from others: weight_norm grows, other parametrisations stay as they are, with a note."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import graphgrow as gg
from tests.preserved import assert_preserved

X = torch.linspace(-1.0, 2.0, 12).view(4, 3)
IMAGE = torch.linspace(-2.0, 1.0, 2 * 3 * 36).view(2, 3, 6, 6)


def older(layer: nn.Module) -> Any:
    return torch.nn.utils.weight_norm(layer)


def layers(norm: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(3, 6)), nn.Tanh(), norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 2))
    for name, parameter in model.named_parameters():
        if name.endswith(("original0", "_g")):  # a length of its own for each row
            nn.init.uniform_(parameter, 0.5, 2.0)
    return model


def assert_grows(graph: gg.Graph, text: str, modes: tuple[str, ...] = ("eval", "train", "gradients", "alive")) -> None:
    child = gg.apply(graph, text)
    assert_preserved(graph, child)
    verdict = gg.verify(graph, child, modes=modes)
    assert verdict.preserved is True, str(verdict)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, older], ids=["parametrisation", "hook"])
@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_weight_norm_grows_length_and_direction(norm: Callable[[nn.Module], nn.Module], way: str) -> None:
    model = layers(norm)
    graph = gg.trace(model, X, way=way)
    assert set(graph.module.state_dict()) == set(model.state_dict())
    assert torch.equal(graph.module(X), model(X))
    assert "which the graph does not" not in graph.explain()
    for text in ("widen(0, extra=2)", "widen(2, extra=2)", "split(2)"):
        assert_grows(graph, text)
    shapes = {tuple(p.shape) for p in gg.apply(graph, "widen(2, extra=2)").module.parameters()}
    assert {(7, 1), (7, 6)} <= shapes
    with pytest.raises(gg.Declined, match="the norm over the axis, whose new units are share"):
        gg.apply(graph, "split(0)")


def test_convolutions_with_weight_norm_grow_along_either_axis() -> None:
    torch.manual_seed(0)
    whole: Any = None
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Tanh(),
        parametrizations.weight_norm(nn.ConvTranspose2d(4, 5, 3)), nn.Tanh(),  # whose rows are what it reads
        parametrizations.weight_norm(nn.ConvTranspose2d(5, 4, 3), dim=1), nn.Tanh(),
        parametrizations.weight_norm(nn.Conv2d(4, 4, 1), dim=whole), nn.Flatten(), nn.Linear(4 * 64, 2),
    )  # fmt: skip
    graph = gg.trace(model, IMAGE)
    for text in ("widen(0, extra=2)", "split(0)", "widen(2, extra=2)", "widen(4, extra=2)"):
        assert_grows(graph, text)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, older], ids=["parametrisation", "hook"])
def test_layers_with_weight_norm_are_called_by_their_names_and_have_channels(norm: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        norm(nn.Conv1d(3, 6, 3, padding=1)), nn.LeakyReLU(), norm(nn.Conv1d(6, 6, 3, padding=1)), nn.LeakyReLU(),
        norm(nn.ConvTranspose1d(6, 4, 4, 2)), nn.Tanh(), norm(nn.Conv1d(4, 2, 3)),
    )  # fmt: skip
    graph = gg.trace(model, torch.randn(2, 3, 7))
    assert {group.name: group.frozen is None for group in graph.groups} == {"0": True, "2": True, "4": True, "6": False}
    named = gg.apply(graph, "widen(4.parametrizations.weight, extra=1)") if norm is not older else None
    assert named is None or named.module.get_parameter("4.bias").shape == (5,)
    for text in (
        "deepen(1, kind=conv)",
        "add-skip(1, target=3)",
        "widen(0, extra=2)",
        "mix-operators(3, choices=[relu])",
    ):
        assert_grows(graph, text, ("eval", "train"))


def test_a_grown_model_is_trained_saved_and_loaded(tmp_path: Any) -> None:
    model = layers(parametrizations.weight_norm)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model(X).square().mean().backward()
    optimizer.step()
    grown = gg.apply(gg.trace(model, X), ["widen(0, extra=2)", "split(2, units=[1])"], optimizer=optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        grown.module(X).square().mean().backward()
        optimizer.step()
    gg.save(grown, tmp_path / "grown")
    loaded = gg.load(tmp_path / "grown", layers(parametrizations.weight_norm))
    assert torch.equal(loaded.module(X), grown.module(X))
    assert torch.equal(copy.deepcopy(grown.module)(X), grown.module(X))


class Positive(nn.Module):
    """A parametrisation of a user's own."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.exp()


def test_a_parametrisation_of_a_users_own_is_traced_into() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    parametrize.register_parametrization(model[2], "weight", Positive())
    graph = gg.trace(model, X)
    assert_grows(graph, "widen(2, extra=2)")
    assert_grows(graph, "widen(0, extra=2)", ("eval", "train"))  # with units of zero, as exp(w) is never zero
    with pytest.raises(gg.Declined):
        gg.apply(graph, "split(0)")  # nor do shares of w add up behind it


def test_spectral_norm_grows_by_rows_and_columns_of_zero() -> None:
    """Also where every layer has one, and so after steps that turned its vectors to the new rows."""
    torch.manual_seed(0)
    norm = parametrizations.spectral_norm
    model = nn.Sequential(
        norm(nn.Conv2d(3, 4, 3)), nn.LeakyReLU(), norm(nn.ConvTranspose2d(4, 5, 3)), nn.LeakyReLU(), nn.Flatten(),
        norm(nn.Linear(5 * 36, 6)), nn.LeakyReLU(), norm(nn.Linear(6, 1)),
    )  # fmt: skip
    graph = gg.trace(model, IMAGE)
    for text in ("widen(0, extra=2)", "widen(2, extra=2)", "widen(5, extra=2)"):
        assert_grows(graph, text)
    nn.init.zeros_(model[0].get_parameter("bias"))
    grown = gg.apply(graph, ["widen(0, extra=2)", "widen(5, extra=2)"])
    for name, old in (("0.bias", 4), ("5.bias", 6)):  # rows of zero: what is below zero here, ReLU lets nothing through
        assert bool((grown.module.get_parameter(name)[old:] > 0).all())
    verdict = gg.verify(graph, grown)
    assert ("train", "buffers after the step") in {(check.mode, check.what) for check in verdict.checks}
    optimizer = torch.optim.SGD(grown.module.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        grown.module.train()(IMAGE).square().mean().backward()
        optimizer.step()
    assert all(bool(buffer.isfinite().all()) for buffer in grown.module.buffers())
    assert grown.module.state_dict()["5.parametrizations.weight.0._u"][6:].abs().min() > 0
    assert_preserved(grown, gg.apply(grown, "widen(5, extra=1)"))
    with pytest.raises(gg.Declined, match="the largest singular value over the axis"):
        gg.apply(graph, "split(5)")


def _older_spectral(layer: nn.Module, **options: Any) -> Any:
    return torch.nn.utils.spectral_norm(layer, **options)


def _discriminator(steps: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        _older_spectral(nn.Conv2d(3, 4, 3)), nn.LeakyReLU(0.1),
        _older_spectral(nn.ConvTranspose2d(4, 5, 3)), nn.Tanh(),
        nn.Flatten(), _older_spectral(nn.Linear(5 * 36, 2), n_power_iterations=steps),
    )  # fmt: skip
    with torch.no_grad():
        model(IMAGE)
    return model


def test_the_older_spectral_norm_grows_by_rows_and_columns_of_zero() -> None:
    model = _discriminator()
    graph = gg.trace(model.eval(), IMAGE)
    assert graph.modes == {"train", "eval"}
    assert set(graph.module.state_dict()) == set(model.state_dict())
    for text in ("widen(0, extra=2)", "widen(2, extra=2)"):
        assert_grows(graph, text)
    with pytest.raises(gg.Declined, match="function of shares"):
        gg.apply(graph, "split(0)")


@pytest.mark.parametrize("steps", [1, 2])
def test_two_calls_with_the_older_spectral_norm_before_one_backward(steps: int) -> None:
    """As a discriminator is trained on what is real and what is not; each call steps the power iteration."""
    model = _discriminator(steps).train()
    twin = copy.deepcopy(gg.trace(model, IMAGE).module)
    for net in (model, twin):
        (net(IMAGE) - net(-IMAGE)).sum().backward()
    wanted, found = dict(model.named_parameters()), dict(twin.named_parameters())
    assert wanted.keys() == found.keys()
    for name, parameter in wanted.items():
        torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-6, atol=1e-7)
    kept = dict(twin.named_buffers())
    assert all(torch.equal(buffer, kept[name]) for name, buffer in model.named_buffers())


def test_other_parametrisations_stay_and_all_else_grows() -> None:
    torch.manual_seed(0)
    kind = parametrizations.orthogonal
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), kind(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)
    )
    graph = gg.trace(model, X)
    assert graph.modes == {"eval", "train"}
    assert 'remove_parametrizations(module, "weight")' in graph.explain()
    assert "has no axis rule" in str(graph.group("0").frozen)
    assert_grows(graph, "widen(4, extra=2)")
    parametrize.remove_parametrizations(model[2], "weight")
    assert_grows(gg.trace(model, X), "widen(0, extra=2)")
