"""What MODEL may be, and what is said where it is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.commands import MLP, SHAPE, call, json_of


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing"], 1, "is no model"),
        (["graphgrow:nothing"], 1, "there is no graphgrow:nothing"),
        (["graphgrow.nothing:model"], 1, "cannot import"),
        ([MLP], 1, "add the shape, as --input"),
        ([MLP, "--input", "2,5"], 1, "fails on its own example inputs"),
        ([MLP, "--input", "2,x"], 2, "is no shape"),
        ([MLP, "--input", "2,0"], 2, "is no shape"),
        (["tests.cli.commands:broken", SHAPE], 1, "a defect of the factory"),
    ],
)
def test_what_is_no_model_is_one_message(arguments: list[str], code: int, words: str) -> None:
    result = call("inspect", *arguments, code=code)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_the_input_shape_can_be_another_one() -> None:
    assert json_of("inspect", "graphgrow:gpt", "--input", "3,8")["inputs"] == [{"shape": [3, 8], "dtype": "int64"}]


def test_a_named_model_has_the_same_weights_in_each_command(tmp_path: Path) -> None:
    call("grow", "graphgrow:mlp", "split(layers.0)", "--out", tmp_path / "a")
    assert json_of("verify", "graphgrow:mlp", tmp_path / "a")["preserved"] is True


def test_a_folder_knows_its_inputs(tmp_path: Path) -> None:
    call("grow", MLP, SHAPE, "split(0)", "--out", tmp_path)
    assert json_of("inspect", tmp_path, "--base", MLP)["inputs"][0]["shape"] == [2, 4]
    assert "leave --input out" in call("inspect", tmp_path, SHAPE, "--base", MLP, code=2).stderr


def test_a_factory_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_net.py").write_text("from torch import nn\ndef make(): return nn.Linear(4, 2)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert json_of("inspect", "my_own_net:make", SHAPE)["parameters"] == 10
