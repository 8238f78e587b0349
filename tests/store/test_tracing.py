"""gg.trace: a model that takes another path in the other mode is captured with a warning, exported from eval alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg


class Detector(nn.Module):
    """Raw numbers and a loss of theirs in train mode, decoded ones in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        raw: torch.Tensor = self.head(torch.relu(self.body(x)))
        return (raw, raw.square().mean()) if self.training else raw.sigmoid() * 2 - 0.5


@pytest.mark.parametrize(("mode", "other"), [("train", "eval"), ("eval", "train")])
def test_a_graph_of_one_mode_says_so(mode: str, other: str) -> None:
    with pytest.warns(UserWarning, match=rf"holds for {mode} mode alone.*model\.{other}\(\)"):
        graph = gg.trace(Detector().train(mode == "train"), torch.randn(2, 3))
    assert graph.modes == {mode}


def test_a_graph_of_both_modes_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)), torch.randn(2, 3))
    assert graph.modes == {"eval", "train"}


def test_a_graph_of_train_mode_is_not_exported_as_one_of_eval_mode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Detector()
    with pytest.warns(UserWarning, match="mode alone"):
        graph = gg.apply(gg.trace(model, torch.randn(2, 3)), "widen(body, extra=2)")
    with pytest.raises(gg.ExportError, match=r"captured in train mode.*model\.eval\(\)"):
        gg.export_onnx(graph, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match="mode alone"):
        again = gg.replay(model.eval(), torch.randn(2, 3), graph.ledger)
    assert gg.export_onnx(again, tmp_path / "m.onnx").max_error < 1e-5


class Weighted(nn.Module):
    """Weights of a loss that is taken outside, a tied head, and a layer that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head, self.spare = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(2, 2)
        self.head.weight = self.table.weight
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.table(ids)))


@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_parameters_that_the_forward_does_not_use_are_named(way: str) -> None:
    graph = gg.trace(Weighted(), torch.tensor([[1, 2, 4]]), way=way)
    (note,) = [note for note in graph.notes if "does not use" in note]
    assert "`log_variance`, `spare.weight`, `spare.bias`:" in note
    assert note in graph.explain()
    full = gg.trace(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), torch.randn(2, 3), way=way)
    assert not any("does not use" in note for note in full.notes)
