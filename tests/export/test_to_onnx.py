"""Exports of small models, read back by onnx and run by onnxruntime; failures leave the folder as it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

import graphgrow as gg
from graphgrow.errors import ExportError
from graphgrow.export import export_onnx, files
from graphgrow.ir.inputs import InputSpec


def exportable(module: nn.Module, *args: Any, kwargs: Mapping[str, Any] | None = None) -> SimpleNamespace:
    return SimpleNamespace(module=module, inputs=InputSpec.of(args, kwargs))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5)]
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Token ids and a mask in, a dictionary out; the mask is a keyword, one output is of integers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 8)
        self.qkv = nn.Linear(8, 24)

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor, scale: float) -> dict[str, Any]:
        x = self.embedding(ids)
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        y = y.transpose(1, 2).flatten(2) * scale
        return {"ids": ids, "states": (y, y.argmax(-1)), "cache": None}


class Visible(nn.Module):
    """Shows the first token to everyone: a row of a random mask may hide all of them, which is NaN in torch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor, scale: float) -> Any:
        return self.attention(ids, mask=mask | (torch.arange(mask.shape[1]) == 0), scale=scale)


def test_convolutional_model_with_dynamic_batch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = convolutional()
    model[1].eval()
    graph = exportable(model, torch.randn(2, 3, 6, 6))
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()

    record = export_onnx(graph, tmp_path / "new" / "m.onnx")

    assert capfd.readouterr() == ("", "")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    file = tmp_path / "new" / "m.onnx"
    assert [entry.name for entry in file.parent.iterdir()] == ["m.onnx"]
    assert (record.path, record.bytes, record.external_data) == ("m.onnx", file.stat().st_size, False)
    assert (record.dynamic_batch, record.batch_sizes, record.notes) == (True, (1, 2, 3), ())
    assert (record.input_names, record.output_names) == (("input",), ("output",))
    assert 0 < record.max_error <= record.bound < 1e-5
    proto = onnx.load(str(file))
    assert record.opset == next(entry.version for entry in proto.opset_import if entry.domain == "")
    assert "5.weight" in {tensor.name for tensor in proto.graph.initializer}
    assert str(Path(__file__).parent).encode() not in file.read_bytes()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 6, 6]
    x = torch.randn(7, 3, 6, 6)
    (found,) = session.run(None, {"input": x.numpy()})
    np.testing.assert_allclose(found, model.eval()(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_integers_booleans_keywords_and_nested_outputs(tmp_path: Path, batch: int) -> None:
    ids = torch.arange(batch * 5).view(batch, 5) % 11
    graph = exportable(Visible(), ids, kwargs={"mask": torch.ones(batch, 5, dtype=torch.bool), "scale": 2.0})
    record = export_onnx(graph, tmp_path / "m.onnx")
    assert record.input_names == ("ids", "mask")
    assert record.output_names == ("ids_out", "states_0", "states_1")
    assert record.dynamic_batch
    assert record.batch_sizes == ((1, 3) if batch == 1 else (1, 3, 4))


def test_a_model_that_fixes_its_batch_is_exported_static_and_says_so(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(2, 6)[:, :3].sin()

    record = export_onnx(exportable(Fixed(), torch.randn(2, 2, 3)), tmp_path / "m.onnx")
    assert (record.dynamic_batch, record.batch_sizes) == (False, (2,))
    assert "batch size 1" in record.notes[0]


def test_a_model_that_branches_on_its_batch_is_exported_static_and_says_so(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() if x.shape[0] == 2 else x.cos()

    record = export_onnx(exportable(Branching(), torch.randn(2, 3)), tmp_path / "m.onnx")
    assert (record.dynamic_batch, record.batch_sizes) == (False, (2,))
    assert "dynamic" in record.notes[0]


@pytest.mark.parametrize("size", [1, 5])
def test_a_static_batch_that_was_asked_for(tmp_path: Path, size: int) -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    graph = exportable(Visible(), torch.tensor([[0, 10, 3]] * 2), kwargs={"mask": mask, "scale": 0.5})
    record = export_onnx(graph, tmp_path / "m.onnx", static_batch=size)
    assert (record.dynamic_batch, record.batch_sizes) == (False, (size,))
    assert record.notes[0] == f"static batch {size}, as it was asked for"
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in onnx.load(tmp_path / "m.onnx").graph.input] == [
        size,
        size,
    ]
    assert graph.inputs.batch_size == 2


def test_no_static_batch_without_a_batch_axis(tmp_path: Path) -> None:
    scalar = exportable(nn.Identity(), torch.tensor(1.0))
    with pytest.raises(ExportError, match="the inputs have no batch axis"):
        export_onnx(scalar, tmp_path / "m.onnx", static_batch=1)


@pytest.mark.parametrize("opset", [18, 21])
def test_the_opset_asked_for_is_recorded(tmp_path: Path, opset: int) -> None:
    record = export_onnx(exportable(nn.Linear(3, 2), torch.randn(2, 3)), tmp_path / "m.onnx", opset=opset)
    assert record.opset == opset


def test_float16(tmp_path: Path) -> None:
    graph = exportable(nn.Linear(8, 4).half(), torch.randn(2, 8).half())
    record = export_onnx(graph, tmp_path / "m.onnx")
    assert record.max_error <= record.bound < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_copy_in_float32_stands_for_what_onnxruntime_has_no_kernels_for(tmp_path: Path, dtype: torch.dtype) -> None:
    model = convolutional().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = export_onnx(exportable(model, torch.randn(2, 3, 6, 6).to(dtype)), tmp_path / "m.onnx")
    assert str(dtype) in record.notes[0]
    assert "a copy in float32 was exported" in record.notes[0]
    assert record.dynamic_batch
    assert 0 < record.max_error <= record.bound < 1e-5  # float32's own, not bfloat16's
    assert all(t.dtype == before[name].dtype and torch.equal(t, before[name]) for name, t in model.state_dict().items())
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    x = torch.randn(3, 3, 6, 6)
    (found,) = session.run(None, {"input": x.numpy()})
    wanted = model.eval().double()(x.double()).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_dtype_can_be_asked_for(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(4, 3, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.map(x.to(torch.float64)) + torch.zeros(3, dtype=torch.float64)
            return y.double()

    graph = gg.trace(Named(), torch.randn(2, 4, dtype=torch.float64))
    assert export_onnx(graph, tmp_path / "wide.onnx").notes == ()
    record = export_onnx(graph, tmp_path / "narrow.onnx", dtype=torch.float32)
    assert record.notes == ()
    assert 1e-9 < record.max_error < 1e-5
    types = {tensor.data_type for tensor in onnx.load(str(tmp_path / "narrow.onnx")).graph.initializer}
    assert onnx.TensorProto.DOUBLE not in types
    with pytest.raises(ExportError, match="floating point"):
        export_onnx(graph, tmp_path / "m.onnx", dtype=torch.int64)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_with_the_sequence_in_front(tmp_path: Path, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    """Axis 0 is the sequence, which torch's exporter fixes: at other lengths the file must not be wrong, but static."""
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = kind(6, 8, num_layers=2, bidirectional=True), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.layer(x)[0])
            return y

    record = export_onnx(exportable(Last(), torch.randn(5, 2, 6)), tmp_path / "m.onnx")
    assert (record.dynamic_batch, record.batch_sizes) == (False, (5,))
    assert "static batch 5" in record.notes[0]
    assert 0 < record.max_error <= record.bound < 1e-5


def test_large_weights_go_into_a_file_of_their_own(tmp_path: Path) -> None:
    graph, file = exportable(nn.Linear(64, 64), torch.randn(2, 64)), tmp_path / "m.onnx"
    first = export_onnx(graph, file, external_data_above=1000)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert first.external_data
    assert first.bytes == sum(entry.stat().st_size for entry in tmp_path.iterdir())
    assert first.bytes > 4 * 64 * 64
    second = export_onnx(graph, file, external_data_above=1000)
    assert second.external_data
    assert len(list(tmp_path.iterdir())) == 2  # the old weights are gone, whatever the new ones are called
    onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    third = export_onnx(graph, file)
    assert not third.external_data
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def doctored(monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight in the written file is off by one part in a thousand."""
    write = files.write

    def wrong(model: onnx_ir.Model, folder: Path, target: Path, above: int) -> list[Path]:
        written = write(model, folder, target, above)
        proto = onnx.load(str(written[0]))
        tensor = next(one for one in proto.graph.initializer if one.name == "weight")
        values = numpy_helper.to_array(tensor).copy()
        values.flat[np.abs(values).argmax()] *= 1.001
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(proto, str(written[0]))
        return written

    monkeypatch.setattr("graphgrow.export.to_onnx.write", wrong)


def test_a_wrong_weight_fails_the_parity_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    doctored(monkeypatch)
    with pytest.raises(ExportError, match=r"'output' at batch size \d is off by .* the bound is"):
        export_onnx(exportable(nn.Linear(6, 3), torch.randn(2, 6)), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"before")
    doctored(monkeypatch)
    with pytest.raises(ExportError):
        export_onnx(exportable(nn.Linear(6, 3), torch.randn(2, 6)), tmp_path / "m.onnx")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("m.onnx", b"before")]


def test_zero_outputs_are_noted(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    record = export_onnx(exportable(model, torch.randn(2, 3)), tmp_path / "m.onnx")
    assert "exactly zero" in record.notes[0]


def test_random_models_are_refused(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    with pytest.raises(ExportError, match="two runs"):
        export_onnx(exportable(Noisy(), torch.randn(2, 3)), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_onnx_form_is_refused(tmp_path: Path) -> None:
    class Exotic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = torch.special.airy_ai(x)
            return y

    with pytest.raises(ExportError, match="airy"):
        export_onnx(exportable(Exotic(), torch.randn(2, 3)), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger("torch.onnx").level != logging.CRITICAL


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(3, 2, dtype=torch.complex64), "complex64"),
        (nn.Linear(3, 2, device="meta"), "meta"),
        (nn.Linear(4, 2), "fails"),
    ],
)
def test_models_that_cannot_be_exported(tmp_path: Path, module: nn.Module, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        export_onnx(exportable(module, torch.randn(2, 3)), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", [(), (0,), (1, True), ("2",), (1.0,)])
def test_bad_batch_sizes_are_refused(tmp_path: Path, sizes: Any) -> None:
    with pytest.raises(ExportError, match="batch_sizes"):
        export_onnx(exportable(nn.Linear(3, 2), torch.randn(2, 3)), tmp_path / "m.onnx", batch_sizes=sizes)


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="folder"):
        export_onnx(exportable(nn.Linear(3, 2), torch.randn(2, 3)), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot write"):
        export_onnx(exportable(nn.Linear(3, 2), torch.randn(2, 3)), tmp_path / "file" / "m.onnx")


def test_an_input_may_have_the_name_of_an_operator(tmp_path: Path) -> None:
    class Named(nn.Module):
        def forward(self, cat: torch.Tensor, add: torch.Tensor) -> dict[str, torch.Tensor]:
            both = torch.cat([cat + 1, add + cat], 1)
            return {"mul": both * both, "relu": torch.relu(torch.relu(both) - 1)}

    record = export_onnx(exportable(Named(), torch.randn(2, 3), torch.randn(2, 3)), tmp_path / "m.onnx")
    assert record.input_names == ("cat", "add")
    assert record.output_names == ("mul", "relu")
    assert record.dynamic_batch


def test_a_graph_of_train_mode_alone_is_refused(tmp_path: Path) -> None:
    graph = exportable(nn.Linear(3, 2), torch.randn(2, 3))
    graph.modes = frozenset({"train"})
    with pytest.raises(ExportError, match=r"captured in train mode, .* after model\.eval\(\), gg\.replay\(model, "):
        export_onnx(graph, tmp_path / "m.onnx")


def test_a_model_that_fails_on_some_of_its_inputs_is_refused(tmp_path: Path) -> None:
    """Two calls see whether it is the same twice; a further one, on other numbers, fails."""

    class Tired(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Tired.calls += 1
            if Tired.calls > 2:
                raise ValueError("enough")
            return x * 2

    with pytest.raises(ExportError, match=r"the model fails on inputs like its examples: ValueError: enough"):
        export_onnx(exportable(Tired(), torch.tensor(1.0)), tmp_path / "m.onnx")
