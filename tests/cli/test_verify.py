"""`verify`: the verdict as text, as JSON and as exit code."""

from __future__ import annotations

from pathlib import Path

import torch

import graphgrow as gg
from tests.cli.commands import MLP, SHAPE, call, json_of, mlp


def test_a_folder_is_compared_with_its_base(tmp_path: Path) -> None:
    call("grow", "graphgrow:mlp", "widen(layers.0, extra=2)", "--out", tmp_path)
    assert call("verify", tmp_path).stdout.startswith("preserved (eval and train)")


def test_a_base_without_a_name_must_be_given(tmp_path: Path) -> None:
    call("grow", MLP, SHAPE, "split(0)", "--out", tmp_path)
    assert "gg.load" in call("verify", tmp_path, code=1).stderr
    assert json_of("verify", tmp_path, "--base", MLP)["preserved"] is True


def test_a_model_that_was_trained_on_is_not_preserved(tmp_path: Path) -> None:
    call("grow", MLP, SHAPE, "split(0)", "--out", tmp_path / "grown")
    graph = gg.load(tmp_path / "grown", model=mlp())
    with torch.no_grad():
        next(iter(graph.module.parameters())).add_(0.1)
    gg.save(graph, tmp_path / "trained")
    result = call("verify", tmp_path / "grown", tmp_path / "trained", "--base", MLP, code=1)
    assert result.stdout.startswith("NOT preserved")
    assert "trained after it had grown" in result.stderr
    assert json_of("verify", tmp_path / "trained", "--base", MLP, code=1)["preserved"] is False


def test_one_model_that_is_no_folder_is_wrong_usage() -> None:
    assert "BEFORE and AFTER" in call("verify", "graphgrow:mlp", code=2).stderr
