"""Models by name."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.store.names import build, import_torchvision


def broken() -> nn.Module:
    raise RuntimeError("no weights")


def number_and_inputs() -> tuple[int, torch.Tensor]:
    return 3, torch.zeros(2)


NET = nn.Linear(3, 2)


def with_inputs() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A factory that says what its model is called with: two inputs, one of whole numbers."""
    return nn.EmbeddingBag(7, 4), (torch.arange(6) % 7, torch.tensor([0, 2]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "is no model"),
        ("graphgrow:", "is no model"),
        ("graphgrow:nothing", "there are densenet"),
        ("torchvision:resnet17", "did you mean 'resnet"),
        ("no.such.module:factory", "cannot import"),
        ("math:nothing", "has no 'nothing'"),
        ("os:getcwd", "returns str, wanted an nn.Module, or one with its example inputs"),
        ("math:pi", "is float, wanted a module or a function"),
        ("tests.store.test_names:broken", r"fails: RuntimeError: no weights \(at .*test_names.py"),
        ("tests.store.test_names:number_and_inputs", "returns tuple, wanted an nn.Module"),
        ("torch.nn:Linear", r"fails: TypeError: .*in_features"),
    ],
)
def test_unknown_names_are_refused_with_a_remedy(name: str, message: str) -> None:
    with pytest.raises(gg.ModelError, match=message):
        build(name)


def test_options_that_a_model_has_not_are_named() -> None:
    with pytest.raises(
        gg.ModelError, match=r"mlp cannot be made with wings: .*; it takes width, depth, classes, channels"
    ):
        build("graphgrow:mlp", wings=2)


def test_a_module_may_be_named_itself() -> None:
    model, args, named = build("tests.store.test_names:NET")
    assert model.in_features == 3
    assert (args, named) == (None, {})


@pytest.mark.parametrize("missing", ["torchvision", "timm"])
def test_a_package_that_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchvision()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(gg.ModelError, match=f"{missing} is not installed: pip install"):
        build(f"{missing}:resnet18")


def test_a_reference_model_comes_with_inputs() -> None:
    model, args, _ = build("graphgrow:mlp")
    assert args is not None
    assert isinstance(model(*args), torch.Tensor)


def test_a_torchvision_model_can_be_built_and_traced_by_name() -> None:
    graph = gg.trace("torchvision:resnet18", torch.randn(2, 3, 32, 32))
    assert graph.base == "torchvision:resnet18"
    assert graph.group("layer1.0.conv2") is graph.group("conv1")  # one residual stream


def test_a_factory_is_called_and_has_no_inputs_of_its_own() -> None:
    model, args, _ = build("torch.nn:Identity")
    assert isinstance(model, nn.Identity)
    assert args is None
    with pytest.raises(gg.CaptureError, match="wants example inputs"):
        gg.trace("torch.nn:Identity")


def test_a_factory_may_return_its_inputs_too() -> None:
    model, args, _ = build("tests.store.test_names:with_inputs")
    assert isinstance(model, nn.EmbeddingBag)
    assert args is not None
    assert gg.trace("tests.store.test_names:with_inputs").module(*args).shape == (2, 4)


def with_keywords() -> tuple[nn.Module, tuple[()], dict[str, torch.Tensor]]:
    return Keywords(), (), {"ids": torch.tensor([[1, 2], [3, 0]])}


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(5, 4), nn.Linear(4, 2)

    def forward(self, *, ids: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.out(self.table(ids)))


def test_a_factory_may_return_inputs_by_keyword() -> None:
    model, args, kwargs = build("tests.store.test_names:with_keywords")
    assert args == ()
    graph = gg.trace("tests.store.test_names:with_keywords")
    assert graph.module(**kwargs).shape == model(**kwargs).shape == (2, 2, 2)
    with pytest.raises(gg.ModelError, match="returns tuple, wanted an nn"):
        build("tests.store.test_names:too_many")


def too_many() -> tuple[nn.Module, int, int, int]:
    return nn.Identity(), 1, 2, 3


def test_a_model_of_timm_can_be_built_and_traced_by_name() -> None:
    pytest.importorskip("timm")
    graph = gg.trace("timm:test_resnet", torch.randn(2, 3, 32, 32))
    assert graph.base == "timm:test_resnet"
    assert graph.group("conv1.0").size == 16
    _, args, _ = build("timm:test_resnet")
    assert args is not None
    assert args[0].shape == (2, 3, 160, 160)
    with pytest.raises(gg.ModelError, match=r"there is no timm:resnet17; did you mean 'resnet"):
        build("timm:resnet17")
    with pytest.raises(gg.ModelError, match="there is no timm:hf-hub:someone/something"):
        build("timm:hf-hub:someone/something")  # which timm would download


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("raft_small", [(2, 3, 128, 128)] * 2),
        ("mvit_v1_b", [(2, 3, 16, 224, 224)]),
        ("r3d_18", [(2, 3, 16, 112, 112)]),
    ],
)
def test_videos_and_pairs_of_frames(name: str, shapes: list[tuple[int, ...]]) -> None:
    with torch.device("meta"):
        _, args, _ = build(f"torchvision:{name}")
    assert args is not None
    assert [arg.shape for arg in args] == shapes


def test_a_torchvision_that_fails_otherwise_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise RuntimeError("operator library is for another machine")

    monkeypatch.setattr("graphgrow.store.names.importlib.import_module", fails)
    with pytest.raises(gg.ModelError, match="torchvision cannot be imported: operator library is for another machine"):
        import_torchvision()
