"""fold-batch-norm: in eval mode the map in front computes what both did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exports, grown, stirred
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

PAIRS: list[tuple[nn.Module, nn.Module, tuple[int, ...]]] = [
    (nn.Linear(3, 4), nn.BatchNorm1d(4), (2, 3)),
    (nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, eps=0.1), (2, 3)),
    (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, affine=False), (2, 3, 6)),
    (nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6), (2, 3, 6, 5)),
    (nn.Conv3d(3, 4, 2, padding=1, padding_mode="circular"), nn.BatchNorm3d(4), (2, 3, 3, 3, 3)),
    (nn.ConvTranspose2d(3, 4, 2, stride=2), nn.BatchNorm2d(4), (2, 3, 4, 3)),
]


def traced(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> Graph:
    model = stirred(Forward(lambda m, x: m.norm(m.layer(x)).relu(), layer=layer, norm=norm)).double().eval()
    return gg.trace(model, torch.randn(*shape).double())


@pytest.mark.parametrize(("layer", "norm", "shape"), PAIRS, ids=repr)
def test_folded(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    graph = traced(layer, norm, shape)
    assert [str(m) for m in graph.mutations("fold-batch-norm")] == ["fold-batch-norm(norm)"]
    child = grown(graph, "fold-batch-norm(norm)")
    assert child.steps[-1].exact_in == {"eval"}
    assert_preserved(graph, child)
    verdict = gg.verify(graph, child)
    assert (verdict.preserved, verdict.modes) == (True, ("eval",))
    assert {n for n, _ in child.module.named_parameters()} == {"layer.weight", "layer.bias"}
    assert list(child.module.buffers()) == []
    assert gg.apply(without_data(graph), "fold-batch-norm(norm)").text() == child.text()


def test_by_hand() -> None:
    graph = traced(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0), (2, 1))
    values = {"layer.weight": 3.0, "layer.bias": 1.0, "norm.weight": 2.0, "norm.bias": -1.0}
    with torch.no_grad():
        for name, value in values.items():
            graph.module.get_parameter(name).fill_(value)
        graph.module.get_buffer("norm.running_mean").fill_(5.0)
        graph.module.get_buffer("norm.running_var").fill_(4.0)
    child = gg.apply(graph, "fold-batch-norm(norm)")  # gain 2 / sqrt(4) = 1: 3 x + (1 - 5) - 1
    assert child.module.get_parameter("layer.weight").item() == 3.0
    assert child.module.get_parameter("layer.bias").item() == -5.0


def test_a_whole_resnet(tmp_path: Path) -> None:
    graph = gg.trace(stirred(MODELS["resnet"].factory(width=4, depth=1)).eval(), MODELS["resnet"].example())
    folded = gg.apply(graph, list(graph.mutations("fold-batch-norm")))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.module.modules())
    assert gg.verify(graph, folded).preserved is True
    assert_exports(folded, tmp_path)


def run_twice(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.layer(x)
    return m.norm(y) + y


REFUSED = {
    "another reader": (Forward(run_twice, layer=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), "has other readers"),
    "no map": (Forward(lambda m, x: m.norm(x.relu()), norm=nn.BatchNorm1d(3)), "no linear map"),
    "no statistics": (
        Forward(lambda m, x: m.norm(m.layer(x)), layer=nn.Linear(3, 4),
                norm=nn.BatchNorm1d(4, track_running_stats=False)), "no running statistics"),
    "twice": (
        Forward(lambda m, x: m.norm(m.layer(m.layer(x))), layer=nn.Linear(3, 3), norm=nn.BatchNorm1d(3)),
        "uses parameters of `layer` too"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    model, said = REFUSED[name]
    graph = gg.trace(model.eval(), torch.randn(2, 3))
    assert len(graph.mutations("fold-batch-norm")) == 0
    with pytest.raises(gg.Declined, match=said):
        gg.apply(graph, "fold-batch-norm(norm)")


@pytest.mark.parametrize(
    ("site", "said"), [("layer", "it is no batch norm of torch.nn"), ("norm", "a transposed convolution in groups")]
)
def test_other_layers(site: str, said: str) -> None:
    graph = traced(nn.ConvTranspose1d(4, 4, 3, groups=2), nn.BatchNorm1d(4), (2, 4, 5))
    with pytest.raises(gg.Declined, match=said):
        gg.apply(graph, f"fold-batch-norm({site})")


def test_another_axis() -> None:
    graph = traced(nn.Linear(3, 4), nn.BatchNorm1d(5), (2, 5, 3))
    with pytest.raises(gg.Declined, match="another axis"):
        gg.apply(graph, "fold-batch-norm(norm)")


def test_optimizer_state_follows_the_scale() -> None:
    """A weight w' = c w has the gradient g / c, so its moments are m / c and v / c^2."""
    graph = traced(nn.Linear(3, 2), nn.BatchNorm1d(2), (2, 3))
    optimizer = torch.optim.AdamW(graph.module.parameters(), betas=(0.0, 0.0))
    graph.module(torch.randn(5, 3).double()).square().sum().backward()
    optimizer.step()
    state = {key: value.clone() for key, value in optimizer.state[graph.module.get_parameter("layer.weight")].items()}
    child = gg.apply(graph, "fold-batch-norm(norm)", optimizer=optimizer)
    weight, old = child.module.get_parameter("layer.weight"), graph.module.get_parameter("layer.weight")
    gain = (weight / old).detach()
    assert torch.allclose(optimizer.state[weight]["exp_avg"], state["exp_avg"] / gain)
    assert torch.allclose(optimizer.state[weight]["exp_avg_sq"], state["exp_avg_sq"] / gain**2)
    assert len(optimizer.param_groups[0]["params"]) == 2
