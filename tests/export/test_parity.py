"""The comparison itself, on made-up references and files written by onnx's own helpers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from graphgrow.errors import ExportError
from graphgrow.export.files import check
from graphgrow.export.parity import Parity, Reference, check_parity, references, unit_roundoff

X = torch.tensor([[1.0, -2.0, 3.0]])


def affine(path: Path, factor: list[float], output_type: int = TensorProto.FLOAT) -> Path:
    """y = x * factor, written without torch."""
    shape: list[str | int | None] = ["batch", 3]
    nodes = [helper.make_node("Mul", ["x", "f"], ["p"]), helper.make_node("Cast", ["p"], ["y"], to=output_type)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", output_type, shape)],
        [numpy_helper.from_array(np.array(factor, dtype=np.float32), "f")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def compare(path: Path, exact: torch.Tensor, own: torch.Tensor | None = None) -> Parity:
    own = exact if own is None else own
    reference = Reference(1, (X,), (own,), (exact,), (own,), (torch.float32,))
    return check_parity(path, ["x"], ["y"], [reference], noise="noise", reduction=1, roundoff=2.0**-24)


def test_equal_outputs_pass_and_the_bound_is_the_floor(tmp_path: Path) -> None:
    parity = compare(affine(tmp_path / "m.onnx", [2, 2, 2]), X.double() * 2)
    assert parity.max_error == 0
    assert parity.bound == 2 * 2.0**-24 * 6  # gamma = K + 1 = 2 units, the largest output is 6


def test_noise_widens_the_bound_four_times(tmp_path: Path) -> None:
    exact = X.double() * 2
    parity = compare(affine(tmp_path / "m.onnx", [2, 2, 2]), exact, exact + 1e-3)
    assert parity.bound == pytest.approx(4e-3, rel=1e-3)


@pytest.mark.parametrize("factor", [[2, 2, 2.00001], [2, float("nan"), 2], [2, float("inf"), 2]])
def test_wrong_nan_and_infinite_outputs_fail(tmp_path: Path, factor: list[float]) -> None:
    with pytest.raises(ExportError, match=r"'y' at batch size 1 is off by"):
        compare(affine(tmp_path / "m.onnx", factor), X.double() * 2)


def test_equal_infinities_agree(tmp_path: Path) -> None:
    exact = torch.tensor([[float("inf"), -4.0, 6.0]], dtype=torch.float64)
    assert compare(affine(tmp_path / "m.onnx", [float("inf"), 2, 2]), exact).max_error == 0


def test_nan_in_torch_itself_is_undecidable(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="NaN"):
        compare(affine(tmp_path / "m.onnx", [2, 2, 2]), X.double() * float("nan"))


def test_an_own_overflow_does_not_open_the_bound(tmp_path: Path) -> None:
    exact = X.double() * 2
    own = exact.clone()
    own[0, 0] = float("inf")
    with pytest.raises(ExportError, match="off by"):
        compare(affine(tmp_path / "m.onnx", [2, 2, 3]), exact, own)


def test_other_shapes_and_dtypes_fail(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="shape"):
        compare(affine(tmp_path / "m.onnx", [2, 2, 2]), X[0].double() * 2)
    with pytest.raises(ExportError, match="float64"):
        compare(affine(tmp_path / "m.onnx", [2, 2, 2], TensorProto.DOUBLE), X.double() * 2)


def test_a_model_that_names_float32_gets_a_provoked_noise() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.linear(x.to(torch.float32)),)

    model = Fixed()
    with torch.no_grad():
        own = model(X)
        (reference,), words = references(model, [(1, (X,))], [own])
    assert "last place" in words
    assert torch.equal(reference.exact[0], own[0].double())
    moved = (reference.noisy[0] - reference.exact[0]).abs().max()
    assert 0 < moved < 1e-5
    assert model.linear.weight.dtype == torch.float32


def test_unit_roundoff_is_that_of_the_coarsest_dtype() -> None:
    assert unit_roundoff(nn.Linear(2, 2), []) == 2.0**-24
    assert unit_roundoff(nn.Linear(2, 2), [torch.ones(1, dtype=torch.float16)]) == 2.0**-11


def test_a_file_that_onnxruntime_does_not_know_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Unheard", ["x"], ["y"], domain="elsewhere")], "g", [value], [result])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=10), str(tmp_path / "m.onnx"))
    with pytest.raises(ExportError, match=r"onnxruntime refuses the exported model: .*elsewhere.*Unheard"):
        compare(tmp_path / "m.onnx", X.double())


def test_a_file_that_breaks_the_standard_or_has_another_operator_set_is_refused(tmp_path: Path) -> None:
    file = affine(tmp_path / "m.onnx", [2, 2, 2])
    assert check(file, None) == check(file, 18) == 18
    with pytest.raises(ExportError, match=r"could not convert the model to opset 17, it stays at 18; .* Pass opset=18"):
        check(file, 17)
    model = onnx.load(str(file))
    model.graph.node[0].input.append("x")  # a product of three
    onnx.save(model, str(file))
    with pytest.raises(ExportError, match=r"onnx\.checker refuses the exported model: .*Mul.* Try another opset="):
        check(file, None)
