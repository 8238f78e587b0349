"""Example values without data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.ir.meta import MetaRunner, meta_twin, to_meta


def test_tensors_go_to_meta_and_sizes_stay_sizes() -> None:
    x = torch.randn(2, 3)
    found = to_meta({"a": [x, x.shape], "b": 3})
    assert found["a"][0].is_meta
    assert type(found["a"][1]) is torch.Size
    assert found["b"] == 3


def test_what_is_moved_to_a_device_has_its_example_on_meta() -> None:
    runner, x = MetaRunner(nn.Module()), torch.empty(2, 3, device="meta")
    for name, args, kwargs in (
        ("cpu", (), {}),
        ("to", ("cpu", torch.float64), {}),
        ("to", (torch.device("cpu"),), {"non_blocking": True}),
        ("to", (), {"device": "cpu", "dtype": torch.int64}),
    ):
        found = runner.run("call_method", name, (x, *args), kwargs)
        assert (found.device.type, found.shape) == ("meta", x.shape)
        assert found.dtype is (getattr(torch.ones(2, 3), name)(*args, **kwargs).dtype)
    number = runner.run("call_method", "cpu", (torch.tensor(3),), {})
    assert int(number) == 3


class Counted(nn.Module):
    """Divides by the number of elements, read off the size as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(x)) / x.shape.numel()
        return result


def test_methods_of_sizes_run() -> None:
    graph = gg.trace(Counted(), torch.randn(2, 3))
    x = torch.randn(5, 3)
    grown = gg.apply(graph, "widen(first, extra=2)")
    assert torch.allclose(grown.module(x), graph.module(x), atol=1e-6)


LAYERS: list[nn.Module] = [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.BatchNorm2d(4, affine=False)]
LAYERS += [kind() for kind in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)]
LAYERS += [
    nn.Linear(6, 3),
    nn.Linear(6, 1, bias=False),
    nn.LayerNorm(6),
    nn.LayerNorm((5, 6), elementwise_affine=False),
]
LAYERS += [nn.Linear(6, 3, dtype=torch.bfloat16), nn.LayerNorm(6, bias=False), nn.LayerNorm(1)]
LAYERS += [nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.ReLU(inplace=True), nn.BatchNorm2d(4, track_running_stats=False)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_what_is_known_of_a_layer_is_not_run_and_yet_as_torch_has_it(layer: nn.Module, dtype: torch.dtype) -> None:
    root = nn.ModuleDict({"layer": layer})
    kept = torch.empty_strided((2, 4, 5, 6), (120, 1, 24, 4), dtype=dtype, device="meta")
    dense = torch.empty(2, 4, 5, 6, dtype=dtype, device="meta")
    for x in (
        kept,
        dense,
        dense[:, :, ::2],
        dense[:, :3],
        dense[0],
        dense[0, 0],
        dense[0, 0, 0],
        dense[:0],
        dense[None],
    ):
        answers: list[object] = []
        for run in (meta_twin(layer), lambda x: MetaRunner(root).run("call_module", "layer", (x,), {})):
            try:
                found = run(x)
                answers.append((found.shape, found.dtype, found.stride(), found is x))
            except (RuntimeError, ValueError, TypeError) as error:
                answers.append(type(error))
        assert answers[0] == answers[1]


def test_a_layer_that_is_patched_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def patched(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(7)

    root, x = nn.ModuleDict({"layer": nn.Linear(6, 3)}), torch.empty(2, 6, device="meta")
    assert MetaRunner(root).run("call_module", "layer", (x,), {}).shape == (2, 3)
    root["layer"].forward = patched.__get__(root["layer"])
    assert MetaRunner(root).run("call_module", "layer", (x,), {}).shape == (7,)
    del root["layer"].forward
    monkeypatch.setattr(nn.Linear, "forward", patched)
    assert MetaRunner(root).run("call_module", "layer", (x,), {}).shape == (7,)


@pytest.mark.parametrize("target", ["masked_fill", "masked_fill_", torch.masked_fill])
def test_a_mask_is_filled_with_a_number_that_sizes_decide(target: Any) -> None:
    """On other devices torch takes such a number, a tensor without axes on the CPU, as it is."""
    x = torch.empty(2, 3, device="meta")
    kind = "call_method" if isinstance(target, str) else "call_function"
    found = MetaRunner(nn.Module()).run(kind, target, (x, torch.empty_like(x).bool(), torch.tensor(2.0)), {})
    assert (found.is_meta, found.shape, found.dtype) == (True, x.shape, x.dtype)
