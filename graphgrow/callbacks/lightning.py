"""Growing under the Trainer of Lightning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, WeightAveraging

from graphgrow.callbacks.growth import Growth, Told
from graphgrow.errors import TrainingError
from graphgrow.train.policy import GrowthPolicy


class GrowthCallback(Told, Callback):  # type: ignore[misc]
    """Lets the network of a LightningModule grow.

        self.net = Growing(gg.trace(net, example))  # in the LightningModule, where the network stands
        growth = GrowthCallback("dnm", monitor="val_loss")
        Trainer(max_epochs=50, callbacks=[growth]).fit(model, batches, held_out)

    A round ends with each epoch or, where there is validation, with each one that was validated. Training batches are
    observed; the optimizer, its scheduler and the average of a `WeightAveraging` are carried over. Checkpoints hold all
    that a resumed training needs.

    Args:
        policy: or its name.
        monitor: name of the logged metric by which a plateau and a rollback are seen; None is no metric.
        mode: "min" or "max": whether that metric is the better the less, or the greater.
        folder: receives an ONNX file, benchmarked, and a record for each stage; None writes nothing.
        options: of the grower, as `Grower` takes them: `budget`, `when`, `cool_down`, `every`, ...

    Raises:
        TrainingError: for an option that there is not; and when training begins, if the model holds not exactly one
            `Growing`, has several optimizers, is compiled or trained in parallel, or a checkpoint does not fit.
    """

    def __init__(
        self,
        policy: GrowthPolicy | str = "dnm",
        *,
        monitor: str | None = None,
        mode: str = "min",
        folder: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        if mode not in ("min", "max"):
            raise TrainingError(f"mode={mode!r}: wanted 'min' or 'max'")
        self._growth = Growth(policy, None if folder is None else Path(folder), options)
        self._monitor, self._sign = monitor, 1.0 if mode == "min" else -1.0
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, or go on from the checkpoint that the Trainer has loaded."""
        if trainer.world_size > 1:
            raise TrainingError(
                f"{trainer.world_size} processes would keep their wrappers of the old network; run one process on one "
                "device, or `graphgrow train` under torchrun"
            )
        if getattr(pl_module, "_compiler_ctx", None) is not None:
            raise TrainingError("a compiled module cannot be observed; give the Trainer the plain LightningModule")
        if len(trainer.optimizers) != 1:
            raise TrainingError(f"{len(trainer.optimizers)} optimizers; a network that grows is trained by one")
        for average in (one for one in trainer.callbacks if isinstance(one, WeightAveraging)):
            self._growth.average(average._average_model)
        self._growth.begin(pl_module, trainer.optimizers[0])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has been validated."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a round."""
        if trainer.enable_validation and not self._validated:
            return
        self._validated = False
        metric = None
        if self._monitor is not None:
            found = trainer.callback_metrics.get(self._monitor)
            if found is None:
                logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
                raise TrainingError(f"`{self._monitor}` was not logged; logged were: {logged}")
            metric = self._sign * float(found)
        self._growth.round(metric)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the last stage."""
        self._growth.end()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the model and the optimizer; Lightning puts it into its checkpoints."""
        return self._growth.state()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there when training begins."""
        self._growth.restore(state_dict)
