"""Small reference models to grow from: plain torch, one file each, with defaults that run in a moment.

`MODELS` names every one of them with a factory and example inputs:

    entry = MODELS["resnet"]
    model = entry.factory()
    logits = model(*entry.example())

The submodules keep their names here (`models.resnet.BasicBlock`), so that the factories are reached through them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from . import densenet, gpt, lstm, mixer, mlp, mobilenet, resnet, unet, vgg, vit
from .densenet import DenseNet
from .gpt import GPT
from .lstm import LSTMClassifier
from .mixer import Mixer
from .mlp import MLP
from .mobilenet import MobileNet
from .resnet import ResNet
from .unet import UNet
from .vgg import VGG
from .vit import ViT

__all__ = [
    "GPT",
    "MLP",
    "MODELS",
    "VGG",
    "DenseNet",
    "LSTMClassifier",
    "Mixer",
    "MobileNet",
    "ModelEntry",
    "ResNet",
    "UNet",
    "ViT",
]

EXAMPLE_SEED = 0


@dataclass(frozen=True)
class ModelEntry:
    """One reference model.

    Attributes:
        factory: builds the model with fresh weights; every argument is an optional keyword.
        example: builds example inputs for the defaults, of batch size 2, the same at each call.
    """

    factory: Callable[..., nn.Module]
    example: Callable[[], tuple[torch.Tensor, ...]]


def example_images() -> tuple[torch.Tensor, ...]:
    """One batch of normal noise in the shape of CIFAR images: (2, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(EXAMPLE_SEED)
    return (torch.randn(2, 3, 32, 32, generator=generator),)


def example_tokens() -> tuple[torch.Tensor, ...]:
    """One batch of token ids below 64: (2, 16)."""
    generator = torch.Generator().manual_seed(EXAMPLE_SEED)
    return (torch.randint(64, (2, 16), generator=generator),)


MODELS: dict[str, ModelEntry] = {
    "densenet": ModelEntry(densenet.densenet, example_images),
    "gpt": ModelEntry(gpt.gpt, example_tokens),
    "lstm": ModelEntry(lstm.lstm, example_tokens),
    "mixer": ModelEntry(mixer.mixer, example_images),
    "mlp": ModelEntry(mlp.mlp, example_images),
    "mobilenet": ModelEntry(mobilenet.mobilenet, example_images),
    "resnet": ModelEntry(resnet.resnet, example_images),
    "unet": ModelEntry(unet.unet, example_images),
    "vgg": ModelEntry(vgg.vgg, example_images),
    "vit": ModelEntry(vit.vit, example_images),
}
