"""grow-inputs: new channels are read with zero, and a saved model is still made from its old base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.models import MODELS
from graphgrow.rewrite.apply import replay
from tests.passes.claims import assert_exports
from tests.preserved import assert_preserved, assert_same_bits
from tests.rewrite.small_models import Forward


def test_old_channels_are_answered_as_before_whatever_the_new_ones_hold() -> None:
    graph = gg.trace(MODELS["resnet"].factory(width=4, depth=1).double().eval(), torch.randn(2, 3, 32, 32).double())
    child = gg.apply(graph, "grow-inputs(stem, extra=2)")
    x = torch.randn(3, 5, 32, 32).double()
    assert torch.allclose(child.module(x), graph.module(x[:, :3]), rtol=1e-12, atol=0)
    assert child.inputs.tensors[0].shape == (2, 5, 32, 32)
    assert graph.inputs.tensors[0].shape == (2, 3, 32, 32)
    assert child.module.get_submodule("stem").in_channels == 5
    assert_preserved(graph, child)
    assert_same_bits(replay(graph, child.ledger).module, child.module)
    verdict = gg.verify(graph, child, modes="all")
    assert verdict.preserved is True, str(verdict)


def test_verify_sees_a_new_channel_that_is_read() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(2, 3))
    child = gg.apply(graph, "grow-inputs(0)")
    assert gg.verify(graph.module, child).preserved is True
    with torch.no_grad():
        child.module.get_parameter("0.weight")[0, 3] = 1e-3
    assert gg.verify(graph, child).preserved is False


def test_several_readers_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor, *, y: torch.Tensor) -> torch.Tensor:
            """(n, 3) and (n, 5) -> (n, 4)."""
            result: torch.Tensor = self.a(x) * self.b(x) + self.c(y)
            return result

    graph = gg.trace(Two().double(), (torch.randn(2, 3).double(),), {"y": torch.randn(2, 5).double()})
    assert [str(m) for m in graph.mutations("grow-inputs")] == ["grow-inputs(a)", "grow-inputs(c)"]
    child = gg.apply(graph, ["grow-inputs(b, extra=2)", "grow-inputs(c)"])
    shapes = {name: tuple(p.shape) for name, p in child.module.named_parameters() if "weight" in name}
    assert shapes == {"a.weight": (4, 5), "b.weight": (4, 5), "c.weight": (4, 6)}
    assert child.inputs.kwargs["y"].shape == (2, 6)
    assert gg.verify(graph, child).preserved is True


@pytest.mark.parametrize(
    ("model", "text", "error", "said"),
    [
        (nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2)), "grow-inputs(1)", gg.Declined, "layer norm"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "grow-inputs(1)", gg.Declined, "reads no axis of an input"),
        (nn.Sequential(nn.Linear(3, 4)), "grow-inputs(0, extra=0)", gg.MutationError, "at least 1"),
        (Forward(lambda m, x: x + m.a(x), a=nn.Linear(3, 3)), "grow-inputs(a)", gg.Declined, "a model output"),
        (Forward(lambda m, x: m.a(x) + m.b(x[:, :2]), a=nn.Linear(3, 3), b=nn.Linear(2, 3)), "grow-inputs(a)",
         gg.Declined, "reads no axis of an input"),
    ],
)  # fmt: skip
def test_refusals(model: nn.Module, text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        gg.apply(gg.trace(model, torch.randn(2, 3)), text)


def test_saved_loaded_grown_on_and_exported(tmp_path: Path) -> None:
    child = gg.apply(gg.trace("graphgrow:unet"), ["grow-inputs(down.0.conv1)", "grow-outputs(head, extra=2)"])
    with torch.no_grad():
        for parameter in child.module.parameters():
            parameter.add_(torch.full_like(parameter, 0.01))
    loaded = gg.load(gg.save(child, tmp_path / "saved"))
    assert_same_bits(loaded.module, child.module)
    assert loaded.inputs == child.inputs
    assert loaded.text() == child.text()
    again = gg.apply(loaded, "widen(down.0.conv1, extra=1)")
    assert gg.verify(loaded, again).preserved is True
    wide = gg.apply(
        gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)), "grow-inputs(0)"
    )
    assert_exports(wide, tmp_path)


def test_an_input_of_which_single_channels_are_read_stays() -> None:
    graph = gg.trace(Forward(lambda m, x: m.a(x).sum() + x[:, 0].sum(), a=nn.Linear(4, 3)), torch.randn(2, 4))
    assert not list(graph.mutations("grow-inputs"))
    with pytest.raises(gg.Declined, match="the axis is cut into parts behind `x`"):
        gg.apply(graph, "grow-inputs(a)")
