"""What all callbacks share, under a loop of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphgrow.callbacks.growth import Growth
from graphgrow.errors import TrainingError
from graphgrow.train.growing import Growing
from graphgrow.train.schedule import Interval
from tests.train import small


def growth(folder: Path | None = None, **options: Any) -> Growth:
    return Growth("net2net", folder, {"when": Interval(1), "every": 1, "most_stages": 2, **options})


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), Growing(small.graph()))


def groups(of: nn.Module) -> torch.optim.AdamW:
    named = dict(of.named_parameters())
    decayed = [parameter for name, parameter in named.items() if "bias" not in name]
    rest = [parameter for name, parameter in named.items() if "bias" in name]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}])


def step(of: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    small.loss(of.train()).backward()
    optimizer.step()


def test_the_model_object_stays_and_every_stage_is_recorded(tmp_path: Path) -> None:
    net, run = model(), growth(tmp_path)
    optimizer = groups(net)
    growing = net[1]
    run.begin(net, optimizer)
    for _ in range(3):
        step(net, optimizer)
        before = net.eval()(small.INPUTS)
        run.round(1.0)
        assert torch.allclose(net.eval()(small.INPUTS), before, atol=1e-5)
    run.end()
    assert growing is net[1]
    assert vars(growing)["grower"] is None
    assert [stage.name for stage in run.stages] == ["base", "net2net", "net2net"]
    assert all(stage.preserved and stage.export and stage.benchmark for stage in run.stages)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "00-base.json",
        "01-net2net.json",
        "02-net2net.json",
    ]
    assert [decision.verdict for decision in run.decisions] == ["grown", "grown"]


def test_a_stage_that_did_not_pay_is_taken_back(tmp_path: Path) -> None:
    net, run = model(), growth(tmp_path, rollback_after=1)
    optimizer = groups(net)
    run.begin(net, optimizer)
    step(net, optimizer)
    assert run.round(0.5)
    step(net, optimizer)
    assert run.round(0.6)
    assert net[1].graph.parameter_count == net[1].base.parameter_count
    assert [stage.name for stage in run.stages] == ["base", "net2net", "rolled-back"]
    ended = run.stages[1]
    assert ended.export is not None
    assert ended.benchmark is not None
    assert (tmp_path / "01-net2net.onnx").stat().st_size == ended.export.bytes
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}
    step(net, optimizer)


def test_a_state_goes_on_with_an_optimizer_made_anew_and_refuses_what_does_not_fit() -> None:
    ends = []
    for restart in (False, True):
        net, run = model(), growth()
        optimizer: torch.optim.Optimizer = groups(net)
        run.begin(net, optimizer)
        for number in range(3):
            step(net, optimizer)
            run.round(1.0)
            if restart and number == 1:
                kept, weights, moments = run.state(), net.state_dict(), optimizer.state_dict()
                net, run = model(), growth()
                net.load_state_dict(weights)
                optimizer = groups(net)
                optimizer.load_state_dict(moments)
                run.restore(kept)
                run.begin(net, optimizer)
        ends.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    assert torch.equal(*ends)
    run.restore(kept)
    other = model()
    with pytest.raises(TrainingError, match="has grown otherwise"):
        run.begin(other, groups(other))
    run.restore(kept)
    net.load_state_dict(weights)
    with pytest.raises(TrainingError, match=r"groups hold 8 parameters .* those of the checkpoint 4 \+ 4"):
        run.begin(net, torch.optim.AdamW(net.parameters()))


def test_what_cannot_be_is_said_at_once() -> None:
    with pytest.raises(TrainingError, match="a grower has no option budgets; it has averaged, budget"):
        growth(budgets=3)
    with pytest.raises(TrainingError, match="before the training began"):
        growth().round(None)
    with pytest.raises(TrainingError, match="before the training began"):
        growth().state()
