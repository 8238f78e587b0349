"""What the learning benchmark compares: the recipe of a task grows the small net to the big one itself."""

from __future__ import annotations

import argparse

import pytest
import torch

import graphgrow as gg
from graphgrow.data.parts import Data, Part
from graphgrow.models import MLP
from graphgrow.search.training import rate
from tools.bench.learning import plateau, tune
from tools.bench.learning.course import Method, course, from_scratch, growing, traced
from tools.bench.learning.run import runs
from tools.bench.learning.tasks import TASKS, Task, widened


def test_stages_pair_half_of_what_is_new_with_the_other_half() -> None:
    assert widened(["a"], (2, 6, 7)) == (
        ("widen(a, extra=2)", "split(a, units=[2, 3], apart=true)"),
        ("widen(a, extra=1)",),
    )


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.recipe])
def test_a_recipe_ends_with_the_big_net_and_keeps_the_function(name: str) -> None:
    task = TASKS[name]
    assert len(task.recipe) == task.stages
    tokens = torch.arange(64).reshape(2, 32)
    torch.manual_seed(0)
    small, big = gg.trace(task.small(), tokens), gg.trace(task.big(), tokens)
    grown = gg.apply(small, [mutation for stage in task.recipe for mutation in stage], seed=0)
    shapes = [{key: value.shape for key, value in graph.module.named_parameters()} for graph in (grown, big)]
    assert shapes[0] == shapes[1]
    assert grown.flops == big.flops
    torch.testing.assert_close(grown.module(tokens), small.module(tokens), rtol=1e-5, atol=1e-5)
    factor = (big.flops / small.flops) ** (1 / task.stages)
    middle = gg.apply(small, task.recipe[0], seed=0)
    assert middle.flops / small.flops == pytest.approx(factor, rel=0.03)


def test_stacking_makes_the_deep_net_of_the_shallow_one_within_the_stages_of_the_task() -> None:
    task = TASKS["text-deep"]
    tokens = torch.arange(64).reshape(2, 32)
    torch.manual_seed(0)
    small, big = gg.trace(task.small(), tokens), gg.trace(task.big(), tokens)
    part = Part(tokens, tokens)
    start = growing(
        task, Data(part, part, part, 128, "numbers"), 0, Method(rounds=1), "stack", {}, (small.flops, big.flops)
    )
    grower = start(small, torch.optim.AdamW(small.module.parameters()))
    for _ in range(task.stages):
        proposal = grower.propose()
        assert proposal is not None
        grower.apply(proposal)
    shapes = [sorted(tuple(p.shape) for p in graph.module.parameters()) for graph in (grower.graph, big)]
    assert shapes[0] == shapes[1]
    assert grower.graph.flops == big.flops
    assert torch.equal(grower.module(tokens), small.module(tokens))
    arms = [arm for arm, _ in runs(task, Data(part, part, part, 128, "numbers"), 0, {})]
    assert [arm for arm in arms if "stack" in arm] == [
        "stack, 1/2 of the FLOPs",
        "stack: the net that it had half way from scratch, 1/2 of the FLOPs",
        "stack, 1/4 of the FLOPs",
    ]
    assert not any("dnm" in arm for arm in arms)


def test_a_net_from_scratch_draws_its_embeddings_as_the_model_does_and_no_weight_as_zero() -> None:
    task = TASKS["text"]
    tokens = torch.arange(64).reshape(2, 32)
    part = Part(tokens, tokens)
    data = Data(part, part, part, 128, "numbers")
    small = traced(task.small, data, 0)
    grown = gg.apply(small, list(task.recipe[0]), seed=0)
    fresh = from_scratch(task, data, 0, grown.ledger.to_json())
    assert fresh.flops == grown.flops
    embedding = fresh.module.get_parameter("embed.weight")
    assert float(embedding.detach().std()) == pytest.approx(0.02, rel=0.1)
    for name, parameter in fresh.module.named_parameters():
        if name.endswith(".weight") and parameter.dim() == 2:
            assert bool((parameter != 0).all()), name


def test_a_run_for_the_plateau_takes_the_steps_it_is_told_and_looks_at_what_no_report_uses() -> None:
    torch.manual_seed(0)
    part, held = (Part(torch.randn(count, 1, 8, 8), torch.randint(10, (count,))) for count in (40, 16))
    data = Data(part, held, held, 10, "noise")
    task = Task(
        "noise", {}, MLP, lambda: MLP(channels=1, image_size=8, hidden=(8,)), steps=9, stages=1, lr=1e-2, batch_size=20
    )
    rows = [plateau.measured("noise", task, data, steps, 100) for steps in (3, 60)]
    assert [row["steps"] for row in rows] == [3, 60]
    assert [row["key"] for row in rows] == ["noise/3-100", "noise/60-100"]
    assert rows[1]["training_loss"] < rows[0]["training_loss"]
    assert rows[1]["validation_loss"] > rows[1]["training_loss"], "noise is learned by heart"
    assert plateau.show(rows[::-1]).splitlines()[2].startswith("| noise      |     3 |  100 |")


def test_weights_decay_by_the_share_that_the_method_says() -> None:
    torch.manual_seed(0)
    part = Part(torch.randn(40, 1, 8, 8), torch.randint(10, (40,)))
    data = Data(part, part, part, 10, "noise")
    task = Task("noise", {}, MLP, MLP, steps=1, stages=1, lr=1e-2, batch_size=20)
    nets = [traced(lambda: MLP(channels=1, image_size=8, hidden=(8,)), data, 0) for _ in range(3)]
    for net, decay in zip(nets[:2], (0.0, 30.0), strict=True):
        assert course(net, task, data, 0, budget=1, method=Method(weight_decay=decay))["steps"] == 1
    weights = zip(*(net.module.parameters() for net in nets), strict=True)
    for without, decayed, before in weights:
        torch.testing.assert_close(without - decayed, 30.0 * 1e-2 * rate(0.0, 0.05) * before, rtol=1e-3, atol=1e-6)


def test_choices_are_read_as_values_of_what_there_is() -> None:
    assert tune.changes("boost=1.0, forget=False") == {"boost": 1.0, "forget": False}
    assert tune.named(tune.changes("boost=1.0, forget=False")) == "boost = 1.0, forget = False"
    assert tune.named(tune.changes("")) == "as the task has it"
    for text, message in (("5", "not of the form"), ("boost=", "not of the form"), ("bost=1", "no choice bost")):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            tune.changes(text)
