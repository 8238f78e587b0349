"""Devices by name: those that are there, those that are not, and what of a training lies on one."""

from __future__ import annotations

import pytest
import torch

from graphgrow.errors import TrainingError
from graphgrow.train.device import placed, random_states, require_backend, set_random_states, usable_device


def test_the_cpu_is_always_there() -> None:
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda", 0, "sees no GPU here; use cpu"),
        ("cuda:2", 2, "no GPU 2; torch sees 2"),
        ("mps", 0, "mps has no float64, in which each growth is verified"),
        ("xpu", 0, "the kind 'xpu' is not supported"),
        ("gpu", 0, "no device 'gpu'; there are cpu, cuda"),
    ],
)
def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(TrainingError, match=message):
        usable_device(name)


def test_a_backend_that_is_not_there_is_named() -> None:
    require_backend("")
    require_backend("eager")
    with pytest.raises(TrainingError, match=r"no backend 'nothing' here; there are .*eager.*inductor"):
        require_backend("nothing")


def test_under_torchrun_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert usable_device("cuda") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert usable_device("cuda") == torch.device("cuda:1")
    assert usable_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match="no GPU 2"):
        usable_device("cuda")


def test_tensors_are_placed_and_generators_stay() -> None:
    generator = torch.get_rng_state()
    state = {"a": [torch.ones(2), (torch.arange(3), 4)], "generator": generator, "n": None}
    found = placed(state, torch.device("meta"))
    assert found["a"][0].is_meta
    assert found["a"][1][0].is_meta
    assert found["a"][1][1] == 4
    assert torch.equal(found["generator"], generator)


def test_random_numbers_go_on_where_they_were() -> None:
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        states = random_states(cpu)
        first = torch.rand(3)
        set_random_states(cpu, states)
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(TrainingError, match="another kind"):
        set_random_states(cpu, states * 2)
