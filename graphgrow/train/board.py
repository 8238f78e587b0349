"""A training as TensorBoard shows it: curves over the epochs, and each decision about growth as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphgrow.errors import TrainingError
from graphgrow.records import DecisionRecord, EpochRecord, StageRecord


class Board:
    """Writes event files. A training that goes on takes the place of what was written after its checkpoint.

    Args:
        folder: receives them; None writes nothing.
        done: epochs before this sitting.

    Raises:
        TrainingError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None, done: int = 0) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(f"TensorBoard is not here ({error}): pip install 'graphgrow[tensorboard]'") from None
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def epoch(self, record: EpochRecord) -> None:
        """The curves of one epoch."""
        self._scalars(
            record.epoch,
            {
                "loss/training": record.training_loss,
                "loss/validation": record.validation_loss,
                "accuracy/validation": record.validation_accuracy,
                "network/parameters": record.parameters,
                "network/flops": record.flops,
                "learning_rate": record.learning_rate,
            },
        )

    def decision(self, record: DecisionRecord, epoch: int) -> None:
        """A growth, a refusal or a way back, with its reason, mutations and numbers."""
        if self._writer is None:
            return
        lines = [f"**{record.verdict}** by {record.policy}: {record.reason}", ""]
        lines += [f"    {mutation}" for mutation in record.mutations]
        lines += ["", ", ".join(f"{name} {value:.4g}" for name, value in record.numbers.items())]
        self._writer.add_text("growth", "\n".join(lines), epoch)

    def stage(self, record: StageRecord, epoch: int) -> None:
        """What was measured of a stage at its end."""
        found: dict[str, float] = {}
        if record.accuracy_after is not None:
            found["accuracy/test, at the end of a stage"] = record.accuracy_after
        if record.benchmark is not None:
            latencies = record.benchmark.latencies
            found |= {f"latency_ms/batch {one.batch_size}": one.median_ms for one in latencies}
        self._scalars(epoch, found)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, epoch: int, values: dict[str, float]) -> None:
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()
