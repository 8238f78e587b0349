"""grow-outputs: the old logits stay, to the bit, in their places."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.rewrite.apply import replay
from tests.passes.claims import assert_exports
from tests.preserved import assert_preserved, assert_same_bits
from tests.rewrite.small_models import Forward


def two_heads() -> Graph:
    model = Forward(
        lambda m, x: {"a": m.a(m.first(x).tanh()), "rest": (m.b(m.first(x)), x.sum(1))},
        first=nn.Linear(3, 4), a=nn.Linear(4, 2), b=nn.Linear(4, 5, bias=False),
    )  # fmt: skip
    return gg.trace(model.double(), torch.randn(2, 3).double())


def test_each_of_several_outputs_by_itself() -> None:
    graph = two_heads()
    assert [str(m) for m in graph.mutations("grow-outputs")] == ["grow-outputs(a)", "grow-outputs(b)"]
    x = torch.randn(4, 3).double()
    before = graph.module(x)
    child = gg.apply(graph, "grow-outputs(b, extra=2)", seed=1)
    after = child.module(x)
    assert torch.equal(after["a"], before["a"])
    assert torch.equal(after["rest"][0][:, :5], before["rest"][0])
    assert after["rest"][0].shape == (4, 7)
    assert bool(after["rest"][0][:, 5:].any())
    assert torch.equal(after["rest"][1], before["rest"][1])
    assert_preserved(graph, child)
    assert_same_bits(replay(graph, child.ledger).module, child.module)


def test_verify_compares_the_old_part_and_sees_a_mistake_in_it() -> None:
    graph = two_heads()
    child = gg.apply(graph, ["grow-outputs(b, extra=2)", "widen(first, extra=1)", "grow-outputs(b, extra=1)"])
    verdict = gg.verify(graph, child, modes="all")
    assert verdict.preserved is True, str(verdict)
    with torch.no_grad():
        child.module.get_parameter("b.weight")[6] += 1.0  # a new one
    assert gg.verify(graph, child).preserved is True
    with torch.no_grad():
        child.module.get_parameter("b.weight")[4, 0] *= 1 + 1e-9
    assert gg.verify(graph, child).preserved is False


def test_a_head_of_a_convolution_and_a_hidden_stream() -> None:
    graph = gg.trace(MODELS["unet"].factory().eval(), MODELS["unet"].example())
    child = gg.apply(graph, "grow-outputs(head, extra=3)")
    assert child.module(*child.inputs.sample()[0]).shape[1] == 13
    assert gg.verify(graph, child).preserved is True
    encoder = gg.trace(nn.TransformerEncoderLayer(8, 2, 16, 0.0, norm_first=True).eval(), torch.randn(2, 5, 8))
    assert len(encoder.mutations("grow-outputs")) == 0  # the input has this axis too


def _rows_in_one(m: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = m.a(x).flatten()
    return result


REFUSED: dict[str, tuple[Any, str, str]] = {
    "softmax": (nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1)), "grow-outputs(0)", "a softmax over it"),
    "hidden": (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "grow-outputs(0)", "does not leave the model"),
    "residual": (Forward(lambda m, x: x + m.a(x), a=nn.Linear(3, 3)), "grow-outputs(a)", "input"),
    "joined": (Forward(_rows_in_one, a=nn.Linear(3, 3)), "grow-outputs(a)", "joins it with the batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    model, text, said = REFUSED[name]
    graph = gg.trace(model, torch.randn(2, 3))
    with pytest.raises(gg.Declined, match=said):
        gg.apply(graph, text)
    assert text not in [str(m) for m in graph.mutations("grow-outputs")]


def _boxes(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Of two maps, three scores of each of two boxes at each place, as detectors put them out."""
    maps = [m.head(x), m.head(x[..., ::2])]
    return torch.cat([y.transpose(1, 2).reshape(x.shape[0], -1, 3) for y in maps], 1)


@pytest.mark.parametrize(("name", "step"), [("head:0", 3), ("head:1", 2)])
def test_more_boxes_or_scores_at_each_place_of_maps_of_any_size(name: str, step: int) -> None:
    model = Forward(_boxes, head=nn.Conv1d(3, 6, 1)).double()
    graph = gg.trace(model, torch.randn(2, 3, 8).double())
    child = gg.apply(graph, f"grow-outputs({name}, extra=1)")
    assert_preserved(graph, child)
    x = torch.randn(3, 3, 5).double()  # maps of 5 and 3 places
    old, new = model(x), child.module(x)
    if name == "head:0":  # boxes
        new = new.unflatten(1, (8, step))[:, :, :2].flatten(1, 2)
    assert torch.allclose(new[..., :3], old, rtol=0, atol=1e-12)
    verdict = gg.verify(graph, child)
    assert verdict.preserved is True, str(verdict)


@pytest.mark.parametrize(
    "layers",
    [(nn.Conv1d(3, 4, 1), nn.Flatten()), (nn.Conv1d(3, 4, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten())],
    ids=["positions", "pooled"],
)
def test_channels_that_are_laid_out_over_positions_have_no_place_of_their_own(layers: tuple[nn.Module, ...]) -> None:
    graph = gg.trace(nn.Sequential(*layers).double(), torch.randn(2, 3, 5).double())
    found = [str(mutation) for mutation in graph.mutations("grow-outputs")]
    if len(layers) == 3:
        assert found == ["grow-outputs(0)"]
        return
    assert found == []
    with pytest.raises(gg.Declined, match="joins it with positions"):
        gg.apply(graph, "grow-outputs(0)")


def test_a_mean_over_all_of_them_stays_too() -> None:
    """Whatever new units hold, an output that is computed from all must be what it was, or the growth is declined."""
    model = Forward(lambda m, x: (m.a(x), m.a(x).mean(1)), a=nn.Linear(3, 4))
    graph = gg.trace(model.double(), torch.randn(2, 3).double())
    try:
        child = gg.apply(graph, "grow-outputs(a, extra=2)")
    except gg.Declined:
        return
    assert_preserved(graph, child)


def test_nothing_to_add() -> None:
    with pytest.raises(gg.MutationError, match="at least 1"):
        gg.apply(two_heads(), "grow-outputs(a, extra=0)")


def test_exported_saved_and_trained_on(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:mlp")
    optimizer = torch.optim.AdamW(graph.module.parameters())
    child = gg.apply(graph, "grow-outputs(head, extra=2)", optimizer=optimizer)
    child.module(*child.inputs.sample()[0]).square().sum().backward()
    optimizer.step()
    assert_exports(child, tmp_path)
    loaded = gg.load(gg.save(child, tmp_path / "saved"))
    assert_same_bits(loaded.module, child.module)
    assert loaded.text() == child.text()


class Named(NamedTuple):
    first: torch.Tensor
    logits: torch.Tensor


@pytest.mark.parametrize(
    "build",
    [
        lambda a, b: OrderedDict(first=a, logits=b),
        Named,
        lambda a, b: {"first": a, "logits": [b]},
        lambda a, b: OrderedDict(first=OrderedDict(x=a), logits=b),
    ],
)
def test_outputs_in_containers_of_any_class(build: Callable[[Any, Any], Any]) -> None:
    """The old part is found in its place, whatever holds it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.other, self.head = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> Any:
            hidden = torch.relu(self.hidden(x))
            return build(self.other(hidden), self.head(hidden))

    torch.manual_seed(0)
    graph = gg.trace(Net(), torch.randn(2, 3))
    assert [str(mutation) for mutation in graph.mutations("grow-outputs")] == [
        "grow-outputs(other)",
        "grow-outputs(head)",
    ]
    grown = gg.apply(graph, "grow-outputs(head, extra=3)")
    assert list(grown.steps[-1].outputs) == ["1"]
    assert gg.verify(graph, grown).preserved
    assert not graph.analysis.unknown
