"""Options of single reference models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphgrow.models import GPT, MLP, VGG, DenseNet, LSTMClassifier, Mixer, MobileNet, ResNet, UNet, ViT
from graphgrow.models.resnet import BasicBlock

CLASSES = (DenseNet, GPT, LSTMClassifier, Mixer, MLP, MobileNet, ResNet, UNet, VGG, ViT)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_is_an_option_and_off_by_default(model_class: type[nn.Module], rate: float) -> None:
    model = model_class(dropout=rate) if rate else model_class()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    assert all(module.p == rate for module in dropouts)


def test_a_tied_head_shares_its_weight_and_the_default_does_not() -> None:
    tied = GPT(tied=True)
    assert tied.head.weight is tied.embed.weight
    free = GPT()
    assert free.head.weight is not free.embed.weight


def test_gpt_is_causal() -> None:
    torch.manual_seed(0)
    model = GPT().eval()
    tokens = torch.randint(64, (1, 12))
    changed = tokens.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 64
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_gpt_takes_sequences_up_to_its_context() -> None:
    model = GPT(context=8).eval()
    assert model(torch.zeros(1, 5, dtype=torch.int64)).shape == (1, 5, 64)
    with pytest.raises(RuntimeError, match="size"):
        model(torch.zeros(1, 9, dtype=torch.int64))


def test_vgg_without_batch_norm_has_biases_instead() -> None:
    model = VGG(batch_norm=False)
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(module.bias is not None for module in model.modules() if isinstance(module, nn.Conv2d))


def test_resnet_takes_widths_and_blocks() -> None:
    model = ResNet(widths=(8, 12), blocks=(1, 3), classes=7)
    assert sum(isinstance(module, BasicBlock) for module in model.modules()) == 4
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7)


def test_resnet_names_stages_that_do_not_agree() -> None:
    with pytest.raises(ValueError, match="2 stages and blocks has 3"):
        ResNet(widths=(8, 16), blocks=(1, 1, 1))


def test_resnet_20_of_the_paper() -> None:
    """Table 6 gives 0.27 M; projection shortcuts add 2,752 to the paper's 269,722."""
    model = ResNet(blocks=(3, 3, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == 272_474


@pytest.mark.parametrize("size", [16, 64])
def test_fully_convolutional_models_take_other_resolutions(size: int) -> None:
    images = torch.randn(2, 1, size, size)
    assert UNet(channels=1, classes=2)(images).shape == (2, 2, size, size)
    assert DenseNet(channels=1)(images).shape == (2, 10)
    assert MobileNet(channels=1)(images).shape == (2, 10)
