"""Tensors are converted one by one, the newest are kept within a budget, and nothing of the user's is written to."""

from __future__ import annotations

import torch
from torch import nn

import graphgrow as gg
from graphgrow.verification.numbers import Numbers, converted, one_ulp


def test_conversions_are_kept_within_the_budget_and_made_again_beyond_it() -> None:
    first, second = nn.Parameter(torch.randn(10)), nn.Parameter(torch.randn(10))
    numbers = Numbers(torch.float64, keep=80)
    wide = numbers.of(first)
    assert wide.dtype == torch.float64
    assert torch.equal(wide, first.detach().double())
    assert numbers.of(first) is wide
    numbers.of(second)  # 80 bytes more: the first has to go
    assert numbers.of(first) is not wide


def test_tensors_of_the_dtype_and_integers_are_passed_on() -> None:
    numbers = Numbers(torch.float64)
    for tensor in (torch.randn(3, dtype=torch.float64), torch.arange(3)):
        assert numbers.of(tensor).data_ptr() == tensor.data_ptr()
        assert numbers.fresh(tensor).data_ptr() != tensor.data_ptr()


def test_complex_numbers_are_converted_by_their_parts() -> None:
    tensor = torch.randn(3, dtype=torch.complex64)
    assert torch.equal(Numbers(torch.float64).of(tensor), tensor.to(torch.complex128))
    assert Numbers(torch.float32).of(tensor).data_ptr() == tensor.data_ptr()
    moved = Numbers(torch.float64, one_ulp(0)).of(tensor)
    assert 0 < float((moved / tensor - 1).abs().max()) < 1e-15


def test_one_ulp_moves_every_entry_by_one_unit_and_leaves_the_original() -> None:
    """Also of tensors that are longer than the period of the signs, and not laid out row by row."""
    original = torch.randn(3, 5, 70, 90).to(memory_format=torch.channels_last)
    before = original.clone()
    moved = Numbers(torch.float64, one_ulp(0)).of(original)
    ratio = moved / original.double() - 1
    assert torch.equal(original, before)
    assert float(ratio.abs().min()) / torch.finfo(torch.float64).eps >= 0.5
    assert float(ratio.abs().max()) <= 2 * torch.finfo(torch.float64).eps
    assert 0.4 < float((ratio > 0).double().mean()) < 0.6


def test_a_converted_module_has_buffers_of_its_own() -> None:
    norm = nn.BatchNorm1d(3).train()
    mean, buffers = norm.running_mean, dict[int, torch.Tensor]()
    assert mean is not None
    before = mean.clone()
    twin = converted(norm, Numbers(torch.float64), buffers)
    twin(torch.randn(4, 3, dtype=torch.float64) + 5)
    assert torch.equal(mean, before)
    assert float(buffers[id(mean)].min()) > 0.1
    assert converted(norm, Numbers(torch.float64), buffers).get_buffer("running_mean") is buffers[id(mean)]


def test_a_recurrent_layer_is_converted_with_its_list_of_tensors() -> None:
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    found, _ = converted(layer, Numbers(torch.float64), {})(x.double())
    assert found.dtype == torch.float64
    assert torch.allclose(found, layer(x)[0].double(), atol=1e-6)


def test_dtypes_that_a_model_names_are_widened_with_it() -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.softmax(self.first(x).float(), -1, dtype=torch.float32).to(torch.float32)
            return self.second(h)

    torch.manual_seed(0)
    graph = gg.trace(Casting(), torch.randn(2, 4))
    verdict = gg.verify(graph, gg.apply(graph, "add-skip(first, target=:softmax)"))
    assert verdict.preserved, str(verdict)
    assert Numbers(torch.float64).named((torch.float32, [torch.int64])) == (torch.float64, [torch.int64])
    assert Numbers(torch.float32).named((torch.bfloat16, torch.float64)) == (torch.float32, torch.float64)
    assert Numbers(torch.float64).named((torch.complex64, torch.complex128)) == (torch.complex128, torch.complex128)
    assert Numbers(None).named((torch.bfloat16,)) == (torch.bfloat16,)
