"""Tensors are equal to the bit."""

from __future__ import annotations

import math

import pytest
import torch

from graphgrow.ir.bits import same_bits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_nan_is_nan_and_zeros_have_signs(dtype: torch.dtype) -> None:
    one = torch.tensor([0.0, math.nan, 1.0], dtype=dtype)
    assert same_bits(one, one.clone())
    assert not same_bits(one, one.clone().index_fill_(0, torch.tensor([0]), -0.0))
    assert not same_bits(one, one[:2])


def test_the_kind_counts() -> None:
    assert not same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert not same_bits(torch.zeros(2), torch.zeros(2, device="meta"))
    assert same_bits(torch.zeros(2, device="meta"), torch.ones(2, device="meta"))  # there is no more to compare
    assert not same_bits(torch.tensor(True), torch.tensor(False))
