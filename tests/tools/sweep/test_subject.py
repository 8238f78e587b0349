"""The smallest image that a model accepts, and what is said of the capture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphgrow as gg
from tools.sweep.options import Options
from tools.sweep.subject import candidates, describe, image_sizes, prepare

PICKY = """
import torch
from torch import nn

class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        if x.shape[-1] < 100:
            raise ValueError("too small")
        return self.head(self.conv(x).mean((2, 3)))
"""


def test_sizes_to_try() -> None:
    assert image_sizes(224, "small") == [64, 96, 128, 160, 192, 224]
    assert image_sizes(75, "small") == [64, 75]
    assert image_sizes(32, "small") == [32]
    assert image_sizes(224, "own") == [224]
    assert image_sizes(224, "48") == [48]


def test_images_and_videos_shrink_and_tokens_do_not() -> None:
    options = Options(batch=3)
    image, video = torch.randn(2, 3, 96, 96), torch.randn(2, 3, 16, 112, 112)
    assert [args[0].shape for args in candidates("m", (image,), options)] == [(3, 3, 64, 64), (3, 3, 96, 96)]
    assert next(candidates("m", (video,), options))[0].shape == (3, 3, 16, 64, 64)
    tokens = torch.tensor([[1, 2], [3, 4]])
    (args,) = candidates("m", (tokens,), options)
    assert args[0].tolist() == [[1, 2], [3, 4], [1, 2]]


def test_a_given_shape_comes_before_all() -> None:
    options = Options(input=(4, 7))
    (args,) = candidates("m", (torch.randn(2, 3, 96, 96),), options)
    assert args[0].shape == (4, 7)
    with pytest.raises(gg.CaptureError, match="give --input"):
        next(candidates("m", None, Options()))


def test_the_smallest_size_that_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, type[torch.nn.Module]] = {}
    exec(PICKY, namespace)  # a model without a file of its own
    monkeypatch.setattr(
        "tools.sweep.subject.build", lambda name: (namespace["Picky"](), (torch.randn(2, 3, 224, 224),), {})
    )
    subject = prepare("torchvision:picky", Options())
    assert subject.args[0].shape == (2, 3, 128, 128)
    assert subject.graph.base == "torchvision:picky"
    with pytest.raises(gg.CaptureError, match="too small"):
        prepare("torchvision:picky", Options(input_size="64"))


def test_a_model_is_described(tmp_path: Path) -> None:
    found = describe(prepare("graphgrow:mlp", Options(seed=1)))
    # 3 * 32 * 32 inputs, 64 and 64 units, 10 classes (models/mlp.py); only the last bias has no axis that grows
    parameters = (3072 * 64 + 64) + (64 * 64 + 64) + (64 * 10 + 10)
    assert (found["parameters"], found["input"], found["way"]) == (parameters, "2x3x32x32", "fx")
    assert found["modes"] == "eval and train"
    assert found["growable"] == pytest.approx(1 - 10 / parameters)
    assert found["frozen"] == {"a model output": 1}


def test_equal_seeds_give_equal_weights() -> None:
    first, second, other = (prepare("graphgrow:mlp", Options(seed=seed)).model for seed in (3, 3, 4))
    values = [torch.cat([p.flatten() for p in model.parameters()]) for model in (first, second, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
