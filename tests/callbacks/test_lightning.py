"""Growing under the Trainer of Lightning itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from graphgrow.errors import TrainingError
from graphgrow.store.names import import_torchvision
from graphgrow.train.growing import Growing
from graphgrow.train.schedule import Interval
from tests.train import small

import_torchvision()
pl = pytest.importorskip("lightning.pytorch")

from graphgrow.callbacks.lightning import GrowthCallback  # noqa: E402 - behind what it needs

# of few workers and the like; xdist, which hands warnings on, would import lightning to name their class
pytestmark = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")

BATCHES = DataLoader(TensorDataset(small.INPUTS, small.TARGETS), 32)


class Model(pl.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.net = Growing(small.graph(norm=True))
        self.automatic_optimization = optimizers == 1
        self.count = optimizers

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        made = [torch.optim.AdamW(self.parameters(), lr=1e-2) for _ in range(self.count)]
        return made, [torch.optim.lr_scheduler.StepLR(one, 2, 0.5) for one in made]


def trainer(*callbacks: Any, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", callbacks=list(callbacks), **{"max_epochs": 4, **quiet, **options})


def test_it_grows_with_average_and_scheduler_and_resumes_with_the_same_weights(tmp_path: Path) -> None:
    def run(folder: Path, checkpoint: Path | None = None) -> tuple[Model, GrowthCallback, Any]:
        model, growth = Model(), GrowthCallback("dnm", monitor="val_loss", when=Interval(2), every=2, most_stages=1)
        average = pl.callbacks.EMAWeightAveraging(decay=0.9)
        saving = pl.callbacks.ModelCheckpoint(dirpath=folder, save_top_k=-1, filename="{epoch}")
        made = trainer(growth, average, saving)
        made.fit(model, BATCHES, BATCHES, ckpt_path=checkpoint)
        return model, growth, made

    model, growth, made = run(tmp_path / "whole")
    assert [decision.verdict for decision in growth.decisions] == ["grown"]
    assert [stage.preserved for stage in growth.stages] == [True, True]
    assert made.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-2 * 0.25)
    assert {id(p) for p in made.optimizers[0].param_groups[0]["params"]} == {id(p) for p in model.parameters()}
    assert model.net.grower is None
    for epoch in (0, 1):
        again, second, _ = run(tmp_path / f"from {epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert second.decisions == growth.decisions
        pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_an_epoch_that_is_not_validated_is_no_round() -> None:
    growth = GrowthCallback("net2net", monitor="val_loss", when=Interval(1), most_stages=3)
    trainer(growth, check_val_every_n_epoch=2, enable_checkpointing=False).fit(Model(), BATCHES, BATCHES)
    assert [decision.round for decision in growth.decisions] == [0, 1]


def test_what_cannot_grow_is_refused() -> None:
    off = {"enable_checkpointing": False, "max_epochs": 1}
    with pytest.raises(TrainingError, match=r"`val_los` was not logged; logged were: .*val_loss"):
        trainer(GrowthCallback(monitor="val_los"), **off).fit(Model(), BATCHES, BATCHES)
    with pytest.raises(TrainingError, match="2 optimizers"):
        trainer(GrowthCallback(), **off).fit(Model(optimizers=2), BATCHES)
    with pytest.raises(TrainingError, match="2 processes would keep their wrappers of the old network; run one"):
        GrowthCallback().on_train_start(SimpleNamespace(world_size=2), Model())
    with pytest.raises(TrainingError, match="mode='least'"):
        GrowthCallback(mode="least")
    with pytest.raises(TrainingError, match="compiled"):
        trainer(GrowthCallback(), **off).fit(torch.compile(Model(), backend="eager"), BATCHES)
