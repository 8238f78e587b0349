"""Models that do not run on whole numbers that are drawn are compared, exported and timed on those of the example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.ir.inputs import TensorSpec


class Patched(nn.Module):
    """Patches of images, whose sizes are an input, put in the places of those tokens that stand for them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.patch, self.norm = nn.Embedding(9, 4), nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.hidden, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, tokens: torch.Tensor, patches: torch.Tensor, sizes: torch.Tensor, shown: torch.Tensor) -> Any:
        parts = self.norm(self.patch(patches)).split(sizes.prod(-1).tolist())
        x = self.embed(tokens)
        x[(tokens == 8) & shown] = torch.cat([part + part.mean(0) for part in parts])
        return self.out(self.hidden(x).relu())


def example() -> tuple[torch.Tensor, ...]:
    tokens = torch.tensor([[8, 8, 1, 2, 8, 8], [3, 8, 8, 8, 8, 8]])
    shown = torch.ones_like(tokens).bool()
    shown[0, 0] = False
    return tokens, torch.randn(8, 3), torch.tensor([[1, 3], [1, 5]]), shown


def test_what_runs_on_no_drawn_numbers_is_given_those_of_the_example(tmp_path: Path) -> None:
    model, inputs = Patched(), example()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = gg.trace(model, inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any("does not run on drawn ones" in note for note in graph.notes)
    for mutation in ("widen(hidden, extra=2)", "split(patch)"):
        verdict = gg.verify(graph, gg.apply(graph, mutation))
        assert verdict.preserved, verdict
    gg.save(graph, tmp_path / "saved")
    for spec in (graph.inputs, gg.load(tmp_path / "saved", model).inputs):
        for seed in (0, 1):
            (tokens, patches, sizes, shown), _ = spec.sample(seed)
            assert torch.equal(tokens, inputs[0])
            assert torch.equal(sizes, inputs[2])
            assert torch.equal(shown, inputs[3])
            assert shown.dtype is torch.bool
            assert not torch.equal(patches, inputs[1])


def test_the_mistake_of_a_rewrite_is_seen_on_given_numbers() -> None:
    graph = gg.trace(Patched(), example())
    grown = gg.apply(graph, "widen(hidden, extra=2)")
    with torch.no_grad():
        grown.module.get_parameter("hidden.weight")[0, 0] += 1e-3
    assert gg.verify(graph, grown).preserved is False


def test_numbers_are_drawn_where_the_model_runs_on_them() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    graph = gg.trace(model, torch.tensor([[0, 1, 8, 8]]))
    assert graph.inputs.tensors[0].given == ()
    assert not graph.notes


def test_given_numbers_follow_the_batch_and_are_dropped_at_another_shape() -> None:
    graph = gg.trace(Patched(), example())
    tokens = example()[0]
    spec = graph.inputs
    assert torch.equal(spec.sample(0, 3)[0][0], torch.cat((tokens, tokens[:1])))
    assert torch.equal(spec.sample(0, 1)[0][0], tokens[:1])
    assert spec.with_shapes([(2, 7), (8, 3), (2, 2), (2, 6)]).tensors[0].given == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_given_numbers_are_as_many_as_their_places_and_whole(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="no tensor of shape"):
        TensorSpec((2, 2), dtype, given=(1, 2, 3) if dtype is torch.int64 else (1, 2, 3, 4))
