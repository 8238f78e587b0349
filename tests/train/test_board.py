"""Event files, read back by TensorBoard itself."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphgrow.errors import TrainingError
from graphgrow.train import loop
from graphgrow.train.board import Board
from tests.train.test_loop import RECIPE


def test_curves_and_growth_are_those_of_the_record(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=4))
    record = loop.train(recipe, tmp_path, repeats=2, board=True)
    events = EventAccumulator(str(tmp_path / loop.BOARD)).Reload()

    def curve(name: str) -> list[tuple[int, Any]]:
        return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]

    assert curve("loss/validation") == [(one.epoch, one.validation_loss) for one in record.epochs]
    assert curve("accuracy/validation") == [(one.epoch, one.validation_accuracy) for one in record.epochs]
    assert curve("network/parameters") == [(one.epoch, one.parameters) for one in record.epochs]
    assert curve("network/flops") == [(one.epoch, one.flops) for one in record.epochs]
    latencies = [stage.benchmark.latencies[0].median_ms for stage in record.stages if stage.benchmark is not None]
    assert curve("latency_ms/batch 1") == list(zip((2, 4), latencies, strict=True))
    (text,) = events.Tensors("growth/text_summary")
    assert text.step == 2
    told = text.tensor_proto.string_val[0].decode()
    assert "**grown** by dnm" in told
    assert all(mutation in told for mutation in record.decisions[0].mutations)


def test_without_tensorboard_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    Board(None).close()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(TrainingError, match=r"pip install 'graphgrow\[tensorboard\]'"):
        Board(tmp_path)
