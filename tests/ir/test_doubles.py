"""Double precision of real and complex numbers."""

from __future__ import annotations

import pytest
import torch

from graphgrow.ir.doubles import in_double, of_kind, parts


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float16, torch.float64),
        (torch.int64, torch.float64),
        (torch.complex64, torch.complex128),
        (torch.complex128, torch.complex128),
    ],
)
def test_in_double(dtype: torch.dtype, wide: torch.dtype) -> None:
    tensor = torch.ones(2).to(dtype)
    assert in_double(tensor).dtype is wide
    assert of_kind(torch.float64, dtype) is wide


def test_parts_lie_in_the_same_memory() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    assert parts(tensor).tolist() == [[1.0, 2.0], [3.0, -4.0]]
    parts(tensor)[0, 1] = 5.0
    assert tensor[0] == 1 + 5j
    assert parts(tensor.conj()).tolist() == [[1.0, -5.0], [3.0, 4.0]]
    real = torch.ones(2)
    assert parts(real) is real
