"""The parameters of each default model, counted by hand."""

from __future__ import annotations

import pytest

from graphgrow.models import MODELS


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """A convolution without bias."""
    return inputs * outputs * kernel * kernel


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def norm(width: int) -> int:
    return 2 * width


def basic_block(inputs: int, outputs: int) -> int:
    shortcut = conv(inputs, outputs, 1) + norm(outputs) if inputs != outputs else 0
    return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + 2 * norm(outputs) + shortcut


def inverted_residual(inputs: int, outputs: int, expansion: int) -> int:
    hidden = inputs * expansion
    expand = conv(inputs, hidden, 1) + norm(hidden) if expansion > 1 else 0
    return expand + conv(1, hidden, 3) + norm(hidden) + conv(hidden, outputs, 1) + norm(outputs)


def dense_layer(inputs: int) -> int:
    return norm(inputs) + conv(inputs, 32, 1) + norm(32) + conv(32, 8, 3)


def dense_transition(width: int) -> int:
    return norm(width) + conv(width, width // 2, 1)


def double_conv(inputs: int, outputs: int) -> int:
    return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + 2 * norm(outputs)


def up_conv(inputs: int) -> int:
    """A transposed 2x2 convolution with bias to half the width."""
    return conv(inputs, inputs // 2, 2) + inputs // 2


ATTENTION = linear(32, 96) + linear(32, 32)

PARAMETERS: dict[str, int] = {
    "mlp": linear(3072, 64) + linear(64, 64) + linear(64, 10),
    "vgg": (
        conv(3, 16, 3) + conv(16, 32, 3) + conv(32, 64, 3) + conv(64, 64, 3)
        + norm(16) + norm(32) + 2 * norm(64)
        + linear(64 * 4 * 4, 64) + linear(64, 10)
    ),
    "resnet": (
        conv(3, 16, 3) + norm(16)
        + 2 * basic_block(16, 16)
        + basic_block(16, 32) + basic_block(32, 32)
        + basic_block(32, 64) + basic_block(64, 64)
        + linear(64, 10)
    ),
    "mobilenet": (
        conv(3, 16, 3) + norm(16)
        + inverted_residual(16, 16, 1)
        + inverted_residual(16, 24, 4) + inverted_residual(24, 24, 4)
        + inverted_residual(24, 32, 4) + inverted_residual(32, 32, 4)
        + conv(32, 64, 1) + norm(64)
        + linear(64, 10)
    ),
    "densenet": (
        conv(3, 16, 3)
        + dense_layer(16) + dense_layer(24) + dense_layer(32) + dense_transition(40)
        + dense_layer(20) + dense_layer(28) + dense_layer(36) + dense_transition(44)
        + dense_layer(22) + dense_layer(30) + dense_layer(38)
        + norm(46) + linear(46, 10)
    ),
    "unet": (
        double_conv(3, 8) + double_conv(8, 16) + double_conv(16, 32)
        + up_conv(32) + double_conv(32, 16)
        + up_conv(16) + double_conv(16, 8)
        + linear(8, 10)
    ),
    "vit": (
        conv(3, 32, 8) + 32
        + 32 + 17 * 32
        + 3 * (2 * norm(32) + ATTENTION + linear(32, 64) + linear(64, 32))
        + norm(32) + linear(32, 10)
    ),
    "gpt": (
        64 * 32 + 32 * 32
        + 2 * (2 * norm(32) + ATTENTION + linear(32, 128) + linear(128, 32))
        + norm(32) + 32 * 64
    ),
    "mixer": (
        conv(3, 32, 8) + 32
        + 3 * (2 * norm(32) + linear(16, 16) + linear(16, 16) + linear(32, 64) + linear(64, 32))
        + norm(32) + linear(32, 10)
    ),
    # Four gates, each with two biases.
    "lstm": 64 * 32 + 4 * (32 * 48 + 48 * 48 + 2 * 48) + linear(48, 10),
}  # fmt: skip

# Two of the sums worked out on paper, so that the formulas above are not alone.
TOTALS = {"mlp": 201_482, "resnet": 175_258}


def test_every_model_is_counted() -> None:
    assert set(PARAMETERS) == set(MODELS)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameter_count(name: str) -> None:
    model = MODELS[name].factory()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_sums(name: str) -> None:
    assert PARAMETERS[name] == TOTALS[name]
