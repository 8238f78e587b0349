"""Growing under the Trainer of transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.store.names import import_torchvision
from graphgrow.train.growing import Growing
from graphgrow.train.policies.progressive import Progressive
from graphgrow.train.schedule import Interval

import_torchvision()
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from graphgrow.callbacks.transformers import GrowthCallback  # noqa: E402 - behind what it needs

IDS = torch.randint(0, 20, (48, 8), generator=torch.Generator().manual_seed(0))
DATA = [{"input_ids": ids, "labels": (ids[0] > ids[1]).long()} for ids in IDS]
ACTIVATION = "bert.encoder.layer.0.intermediate.intermediate_act_fn:gelu"
STAGES = Progressive(stages=((f"deepen({ACTIVATION}, kind=mlp)", "widen(bert.pooler.dense, extra=2)"),))


def bert() -> Growing:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )
    model = transformers.BertForSequenceClassification(config)
    return Growing(gg.trace(model, (), {"input_ids": IDS[:2], "labels": torch.tensor([0, 1])}))


def trainer(folder: Path, model: nn.Module, growth: GrowthCallback, **options: Any) -> Any:
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }
    args = transformers.TrainingArguments(output_dir=str(folder), **settings)
    data = {"train_dataset": DATA[:32], "eval_dataset": DATA[32:]}
    return transformers.Trainer(model, args, callbacks=[growth], **data)


@pytest.mark.parametrize(("policy", "resumed"), [("dnm", (4,)), (STAGES, (2,))])
def test_it_grows_and_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, policy: Any, resumed: tuple[int, ...]
) -> None:
    def run(checkpoint: str | None = None) -> tuple[Growing, GrowthCallback]:
        model, growth = bert(), GrowthCallback(policy, when=Interval(1), every=1, most_stages=1)
        made = trainer(tmp_path, model, growth)
        made.train(resume_from_checkpoint=checkpoint)
        losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
        assert len(losses) == 3
        made.evaluate()  # no round of the training
        return model, growth

    model, growth = run()
    assert [decision.verdict for decision in growth.decisions] == ["grown"]
    assert [stage.preserved for stage in growth.stages] == [True, True]
    assert growth.stages[1].parameters == sum(p.numel() for p in model.parameters()) > growth.stages[0].parameters
    assert model.grower is None
    for step in resumed:
        again, second = run(str(tmp_path / f"checkpoint-{step}"))
        assert second.decisions == growth.decisions
        pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


class Averaging(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """What a user writes who wants an average."""

    def __init__(self, averaged: AveragedModel) -> None:
        self.averaged = averaged

    def on_step_end(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self.averaged.update_parameters(model)


def test_an_average_grows_along_and_is_resumed(tmp_path: Path) -> None:
    def run(checkpoint: str | None = None) -> tuple[GrowthCallback, AveragedModel]:
        model = bert()
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
        growth = GrowthCallback(STAGES, when=Interval(1), most_stages=1, averaged=averaged)
        made = trainer(tmp_path, model, growth)
        made.add_callback(Averaging(averaged))
        made.train(resume_from_checkpoint=checkpoint)
        assert averaged.module.graph.ledger == model.graph.ledger
        inputs = {"input_ids": IDS[:2], "labels": torch.tensor([0, 1])}
        with torch.no_grad():
            apart = averaged.module.eval()(**inputs).logits - model.eval()(**inputs).logits
        assert 0 < float(apart.abs().max()) < 0.5, "near the model that it averages, and not the model"
        return growth, averaged

    growth, averaged = run()
    assert [decision.verdict for decision in growth.decisions] == ["grown"]
    assert int(averaged.n_averaged) == 6, "steps"
    for step in (2, 4):  # before and behind the growth
        _, again = run(str(tmp_path / f"checkpoint-{step}"))
        pairs = zip(averaged.state_dict().items(), again.state_dict().items(), strict=True)
        assert all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)
    without = trainer(tmp_path / "without", bert(), GrowthCallback(STAGES, when=Interval(9)), num_train_epochs=1)
    without.train()
    model = bert()
    late = trainer(tmp_path / "without", model, GrowthCallback(STAGES, averaged=AveragedModel(model)))
    with pytest.raises(TrainingError, match="without an average"):
        late.train(resume_from_checkpoint=str(tmp_path / "without/checkpoint-2"))


def test_new_parameters_are_grouped_as_the_trainer_would_group_them(tmp_path: Path) -> None:
    model, growth = bert(), GrowthCallback(STAGES, when=Interval(1), most_stages=1)
    made = trainer(tmp_path, model, growth, eval_strategy="no", save_strategy="no", num_train_epochs=1)
    made.train()
    decayed, rest = ({id(p) for p in group["params"]} for group in made.optimizer.param_groups)
    names = set(made.get_decay_parameter_names(model))
    assert any("deepen" in name for name in names)
    assert decayed == {id(p) for name, p in model.named_parameters() if name in names}
    assert rest == {id(p) for name, p in model.named_parameters() if name not in names}


def test_what_cannot_grow_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    model, growth = bert(), GrowthCallback("net2net", when=Interval(1))
    with pytest.raises(TrainingError, match="torch_compile"):
        trainer(tmp_path, model, growth, torch_compile=True).train()
    with pytest.raises(TrainingError, match="0 growing modules in BertForSequenceClassification"):
        trainer(tmp_path, model.module, growth).train()
    without = trainer(tmp_path, model, growth, num_train_epochs=1)
    without.remove_callback(growth)
    without.train()
    with pytest.raises(TrainingError, match="holds nothing of how the network grew"):
        trainer(tmp_path, model, growth).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_model_in_parallel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path, bert(), GrowthCallback("net2net"))
    monkeypatch.setattr(type(made.args), "parallel_mode", transformers.training_args.ParallelMode.NOT_DISTRIBUTED)
    with pytest.raises(TrainingError, match=r"runs the model in parallel \(not_distributed\) and would keep"):
        made.train()


def test_an_evaluation_without_the_metric_is_refused(tmp_path: Path) -> None:
    """A name that is mistyped would be a plateau that is never seen."""
    with pytest.raises(TrainingError, match=r"`eval_acuracy` is no metric of the evaluation; there are: .*eval_loss"):
        trainer(tmp_path, bert(), GrowthCallback(metric="eval_acuracy")).train()
