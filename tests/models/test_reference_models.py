"""What every reference model has to offer, whatever it is: shapes, gradients, modes, tracing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import fx, nn

from graphgrow.models import MODELS

FOLDER = Path(__file__).resolve().parents[2] / "models"

OUTPUT_SHAPES: dict[str, tuple[int, ...]] = {
    "densenet": (2, 10),
    "gpt": (2, 16, 64),
    "lstm": (2, 10),
    "mixer": (2, 10),
    "mlp": (2, 10),
    "mobilenet": (2, 10),
    "resnet": (2, 10),
    "unet": (2, 10, 32, 32),
    "vgg": (2, 10),
    "vit": (2, 10),
}

every_model = pytest.mark.parametrize("name", sorted(MODELS))


def build(name: str, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name].factory(**sizes)


def test_every_file_of_the_folder_is_in_the_table() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == set(MODELS)
    assert set(OUTPUT_SHAPES) == set(MODELS)


@every_model
def test_forward_shape(name: str) -> None:
    logits = build(name)(*MODELS[name].example())
    assert tuple(logits.shape) == OUTPUT_SHAPES[name]
    assert torch.isfinite(logits).all()


@every_model
def test_logits_depend_on_the_input_from_the_start(name: str) -> None:
    """A head that starts at zero would make every rewrite look preserved."""
    model = build(name).eval()
    logits = model(*MODELS[name].example())
    assert logits.abs().max() > 1e-3
    assert not torch.allclose(logits[0], logits[1], rtol=1e-3, atol=0)


@every_model
def test_gradient_reaches_each_parameter(name: str) -> None:
    model = build(name)
    logits = model(*MODELS[name].example())
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * weights).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@every_model
def test_example_inputs_are_the_same_at_each_call(name: str) -> None:
    first, second = MODELS[name].example(), MODELS[name].example()
    assert len(first) == len(second)
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
    assert first[0].shape[0] == 2


@every_model
def test_symbolic_trace_computes_the_same_and_keeps_its_modes(name: str) -> None:
    model = build(name)
    inputs = MODELS[name].example()
    traced = fx.symbolic_trace(model)
    # Train mode first: it moves the running statistics that both share.
    assert torch.equal(traced.train()(*inputs), model.train()(*inputs))
    assert torch.equal(traced.eval()(*inputs), model.eval()(*inputs))


@every_model
@pytest.mark.parametrize("sizes", [{"width": 16, "depth": 1}, {"width": 24, "depth": 4}])
def test_factories_share_their_dials(name: str, sizes: dict[str, int]) -> None:
    logits = build(name, **sizes).eval()(*MODELS[name].example())
    assert tuple(logits.shape) == OUTPUT_SHAPES[name]


@every_model
def test_the_batch_size_is_free(name: str) -> None:
    (example,) = MODELS[name].example()
    assert build(name).eval()(example[:1]).shape[0] == 1
