"""Small numbers stay in a program: it computes what torch does where they decide, on inputs of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.export.constants import constants_taken_exactly


class Computed(nn.Module):
    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run, self.linear = run, nn.Linear(3, 3, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self.linear(x))


def _perplexity(h: torch.Tensor) -> torch.Tensor:
    share = F.one_hot(h.argmax(-1), 3).to(h.dtype).mean(0)
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())


RUNS = {
    "a logarithm": _perplexity,
    "a share of nothing": lambda h: h / (h.abs().sum(-1, keepdim=True) + 1e-12),
    "less a little": lambda h: torch.relu(h) / (torch.relu(h).amax(-1, keepdim=True) - 1e-9),
    "times almost one": lambda h: h * 1.000005,
    "over almost one": lambda h: h / 1.000005,
}


@pytest.mark.parametrize("name", RUNS)
def test_small_numbers_stay(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Computed(RUNS[name]).eval(), torch.randn(4, 3)
    gg.export_onnx(gg.trace(model, x), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for inputs in (x, torch.zeros(4, 3), torch.tensor([[1.0, 0, 0]]).expand(4, 3).contiguous()):
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        wanted = model(inputs).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30)


def test_what_is_written_as_zero_and_one_goes(tmp_path: Path) -> None:
    model, x = Computed(lambda h: (h + 0.0) * 1.0).eval(), torch.randn(4, 3)
    gg.export_onnx(gg.trace(model, x), tmp_path / "m.onnx")
    onnx = pytest.importorskip("onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node] in (["MatMul"], ["Gemm"])


def test_the_rewriter_is_as_it_was_behind_it() -> None:
    matcher = pytest.importorskip("onnxscript.rewriter._matcher")
    before = matcher.math
    with constants_taken_exactly():
        assert not matcher.math.isclose(1e-10, 0.0, rel_tol=1e-5, abs_tol=1e-8)
        assert matcher.math.isclose(float(np.float32(1 / 6)), 1 / 6, rel_tol=1e-5, abs_tol=1e-8)
    assert matcher.math is before
