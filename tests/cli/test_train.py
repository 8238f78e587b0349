"""`graphgrow train`: the list, a short run, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed

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
    assert "stage 1 after epoch 1" in first.output
    assert "function preserved" in first.output
    again = json_of("train", "--recipe", file, "--epochs", 2, "--out", out)
    assert len(again["epochs"]) == 2
    other = call("train", "--recipe", file, "--epochs", 3, "--out", out, code=1)
    assert "another training" in other.output


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this torch has no gloo")
def test_it_runs_as_it_is_under_torchrun(tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text(RECIPE.partition("[growth]")[0])
    program = Path(sys.executable).with_name("graphgrow")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*launcher, str(program), "train", "--recipe", str(file), "--epochs", "1", "--out", str(out)]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=threads)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out accuracy") == 1, "the first process alone tells"
    record = json.loads((out / "training.json").read_text())
    assert record["training_flops"] == 3 * record["epochs"][0]["flops"] * 896, "both had their share"


def test_the_list_and_what_is_refused() -> None:
    assert "digits-dnm" in call("train", "--list").output
    call("train", code=2)
    assert "no device 'tpu'" in call("train", "--recipe", "digits-dnm", "--device", "tpu", code=1).output
    assert "there is no recipe 'digits-dmn'" in call("train", "--recipe", "digits-dmn", code=1).output
