"""`graphgrow train`: the list, a short run, and what is refused."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import call, json_of

RECIPE = """
name = "tiny"
summary = "a [small] MLP"
[model]
name = "graphgrow.models:MLP"
options = { channels = 1, image_size = 8, hidden = [6] }
[data]
name = "digits"
[training]
epochs = 9
[growth]
policy = "net2net"
interval = 1
stages = 1
"""


def test_a_run_goes_on_and_prints_its_record(tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text(RECIPE)
    first = call("train", "--recipe", file, "--epochs", 2, "--out", out, "--device", "cpu")
    assert "stage 1 behind epoch 1" in first.output
    assert "function preserved" in first.output
    again = json_of("train", "--recipe", file, "--epochs", 2, "--out", out)
    assert len(again["epochs"]) == 2
    other = call("train", "--recipe", file, "--epochs", 3, "--out", out, code=1)
    assert "another training" in other.output


def test_the_list_and_what_is_refused() -> None:
    assert "digits-dnm" in call("train", "--list").output
    call("train", code=2)
    assert "no device 'tpu'" in call("train", "--recipe", "digits-dnm", "--device", "tpu", code=1).output
    assert "there is no recipe 'digits-dmn'" in call("train", "--recipe", "digits-dmn", code=1).output
