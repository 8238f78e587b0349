"""Exported folders, read back without graphgrow; failures leave the folder as it was."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.errors import ExportError
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.source import write
from graphgrow.source.forward import forward_lines
from graphgrow.source.write import SourceRecord, export_source
from tests.properties.models import models
from tests.properties.written import Model


def loaded(folder: Path) -> nn.Module:
    specification = importlib.util.spec_from_file_location("exported", folder / "model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    net: nn.Module = module.load()
    return net


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "__pycache__")


class Tied(nn.Module):
    """A tied head, a parameter and a buffer of its own, a mask that is None, dropout that follows the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(7, 8))
        self.register_buffer("scale", torch.rand(8))
        self.query, self.hidden = nn.Linear(8, 8), nn.Linear(8, 6)
        self.back, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, Any]:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        y = F.scaled_dot_product_attention(self.query(x), x, x, attn_mask=mask, dropout_p=0.5 if self.training else 0.0)
        x = x + self.norm(y) * self.scale
        for _ in range(2):  # each layer is called twice
            x = x + self.back(torch.tanh(self.hidden(x)))
        table = torch.tensor([0.5, 1, 1, 1, 1, 1, 1, 2])
        return {"logits": self.head(x * table), "length": torch.arange(tokens.shape[1], device=tokens.device)}


def grown_tied() -> Graph:
    model = Tied()
    model.position.requires_grad_(False)
    model.norm.eval()
    graph = gg.trace(model, torch.randint(11, (2, 5)))
    return gg.apply(graph, ["widen(hidden, extra=3)", "split(hidden, units=[0, 2])"])


READER = """
import sys
sys.modules["graphgrow"] = None  # from here on its import fails
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[2]))
from safetensors.torch import load_file, save_file
try:
    import graphgrow
except ImportError:
    pass
else:
    raise SystemExit("graphgrow can be imported")
from model import load
net = load()
inputs = load_file("inputs.safetensors")
out = {}
for mode in ("eval", "train"):
    torch.manual_seed(3)
    out[mode] = getattr(net, mode)()(inputs["tokens"])["logits"].detach()
assert not [name for name in sys.modules if name.startswith("graphgrow.")]
save_file(out, "outputs.safetensors")
"""


def test_a_process_without_graphgrow_computes_the_same_to_the_bit(tmp_path: Path) -> None:
    grown = grown_tied()
    export_source(grown, tmp_path / "out")
    tokens = torch.randint(11, (3, 7))
    save_file({"tokens": tokens}, tmp_path / "inputs.safetensors")
    command = [sys.executable, "-I", "-c", READER, str(tmp_path / "out"), str(torch.get_num_threads())]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = load_file(tmp_path / "outputs.safetensors")
    for mode in ("eval", "train"):
        torch.manual_seed(3)
        assert torch.equal(found[mode], getattr(grown.module, mode)()(tokens)["logits"]), mode
    assert not torch.equal(found["eval"], found["train"])


def test_what_is_written_and_recorded(tmp_path: Path) -> None:
    grown = grown_tied()
    before = {name: tensor.clone() for name, tensor in grown.module.state_dict().items()}
    random = torch.get_rng_state()

    record = export_source(grown, tmp_path / "new" / "out")

    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], tensor) for name, tensor in grown.module.state_dict().items())
    assert names_in(tmp_path / "new") == ["out"]
    assert names_in(tmp_path / "new" / "out") == ["model.py", "model.safetensors"]
    assert SourceRecord.from_json(record.to_json()) == record
    assert (record.class_name, record.parameters) == ("Tied", grown.parameter_count)
    assert (record.packages, record.notes) == ((), ())
    megabytes = f"{record.bytes / 1e6:.2f} MB together"
    assert str(record) == (
        f"model.py: Tied, {record.parameters:,} parameters; weights in model.safetensors, {megabytes}"
    )
    files = [tmp_path / "new" / "out" / name for name in (record.path, record.weights)]
    assert record.bytes == sum(file.stat().st_size for file in files)
    with safe_open(files[1], framework="pt") as weights:
        stored = set(weights.keys())
    assert stored == set(before) - {"head.weight"}  # tied tensors once, buffers too
    text = files[0].read_text()
    assert "\n    widen(hidden, extra=3) seed=0\n    split(hidden, units=[0, 2]" in text
    assert "class ScaledDotProductAttention(nn.Module):" in text


def test_the_module_is_the_graph_s(tmp_path: Path) -> None:
    grown = grown_tied()
    gg.export_source(grown, tmp_path)
    net = loaded(tmp_path)
    assert type(net).__name__ == "Tied"
    state = grown.module.state_dict()
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert net.head.weight is net.embed.weight
    assert not net.position.requires_grad
    assert net.training
    assert not net.norm.training
    assert "scale" in dict(net.named_buffers())
    with pytest.raises(ValueError, match="captured with mask=None"):
        net(torch.randint(11, (2, 5)), torch.ones(5, 5))


def test_it_trains_as_the_graph_does(tmp_path: Path) -> None:
    grown = grown_tied()
    export_source(grown, tmp_path)
    net, tokens = loaded(tmp_path), torch.randint(11, (4, 6))
    for module in (net, grown.module):
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
        torch.manual_seed(5)
        F.cross_entropy(module(tokens)["logits"].flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    for (name, one), (_, other) in zip(net.named_parameters(), grown.module.named_parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_reference_models_and_grown_ones(name: str, tmp_path: Path) -> None:
    graph = gg.trace(f"graphgrow:{name}")
    mutation = next(iter(graph.mutations("widen")), None)
    for one in [graph] if mutation is None else [graph, gg.apply(graph, mutation)]:
        export_source(one, tmp_path)  # which compares outputs and buffers, in both modes, to the bit
        check = [sys.executable, "-m", "ruff"]
        options = ["--isolated", "--quiet", "--line-length", "120"]
        subprocess.run([*check, "format", "--check", *options, str(tmp_path / "model.py")], check=True)
        subprocess.run([*check, "check", "--select", "E,F,I,UP,W", *options, str(tmp_path / "model.py")], check=True)


@given(models())
def test_random_models(tmp_path_factory: pytest.TempPathFactory, model: Model) -> None:
    module, inputs = model
    graph = gg.trace(module, inputs)
    export_source(graph, tmp_path_factory.mktemp("random"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_another_default_dtype_is_not_relied_on(dtype: torch.dtype, tmp_path: Path) -> None:
    class Waves(nn.Module):
        """With a constant in float32 beside weights of another dtype."""

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2, dtype=dtype)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            octaves = torch.exp(-torch.arange(2, dtype=torch.float32)).to(x.dtype)
            return torch.as_tensor(self.last(torch.cat([(x * octaves).sin(), (x * octaves).cos()], -1)))

    x, before = torch.randn(3, 1, dtype=dtype), torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        graph = gg.trace(Waves(), x)
        export_source(graph, tmp_path)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(loaded(tmp_path)(x), graph.module(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).to(dtype)
    export_source(gg.trace(model, torch.randn(2, 3, 4).to(dtype)), tmp_path)
    assert {parameter.dtype for parameter in loaded(tmp_path).parameters()} == {dtype}


def test_modes_in_which_the_graph_is_not_the_model_s_are_noted(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
            return [x.sin()] if self.training else x.cos()

    record = export_source(gg.trace(Branching().eval(), torch.randn(2, 3)), tmp_path)
    assert any("train mode" in note for note in record.notes)
    assert "\n  note: in train mode this model has another graph" in str(record)
    assert "\nIn train mode this model has another graph" in (tmp_path / "model.py").read_text()
    assert not loaded(tmp_path).training


def test_importable_leaves_of_torchvision(tmp_path: Path) -> None:
    from graphgrow.store.names import import_torchvision

    ops = import_torchvision().ops
    model = nn.Sequential(nn.Linear(3, 4), ops.StochasticDepth(0.5, "row"), ops.Permute([1, 0]))
    record = export_source(gg.trace(model, torch.randn(4, 3)), tmp_path)
    assert record.packages == ("torchvision",)
    text = (tmp_path / "model.py").read_text()
    assert 'StochasticDepth(0.5, "row")' in text
    assert "from torchvision.ops.stochastic_depth import StochasticDepth" in text


class OwnLeaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


def with_own_leaf() -> Graph:
    return gg.trace(nn.Sequential(nn.ReLU(), OwnLeaf()), torch.randn(2, 3), leaves=[OwnLeaf])


def with_parametrisation() -> Graph:
    graph = linear()
    nn.utils.parametrizations.orthogonal(graph.module.get_submodule("0"))
    return graph


def with_changed_attribute() -> Graph:
    graph = gg.trace(nn.Sequential(nn.Conv2d(3, 3, 3)), torch.randn(2, 3, 5, 5))
    setattr(graph.module.get_submodule("0"), "padding", (1, 1))  # noqa: B010  # torch types attributes as tensors
    return graph


def with_hook() -> Graph:
    graph = linear()
    graph.module.register_forward_hook(lambda *_: None)
    return graph


def without_numbers() -> Graph:
    graph = linear()
    graph.module.to("meta")
    return graph


def linear() -> Graph:
    return gg.trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (with_own_leaf, "`1` is a OwnLeaf: .* trace without `leaves`"),
        (with_parametrisation, "`0` .*parametrised.*remove_parametrizations"),
        (with_changed_attribute, "`0` cannot be made by its constructor: Conv2d"),
        (with_hook, "hooks"),
        (without_numbers, "meta device"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(build: Callable[[], Graph], words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        export_source(build(), tmp_path / "out")
    assert names_in(tmp_path) == []


def test_wrong_code_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = forward_lines

    def wrong(*arguments: Any) -> list[str]:
        return [line.replace("self[1](x)", "self[1](x) * 1.0000001") for line in right(*arguments)]

    export_source(linear(), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    monkeypatch.setattr(write, "forward_lines", wrong)
    with pytest.raises(ExportError, match="disagrees with the graph in eval mode"):
        export_source(linear(), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_a_second_export_replaces_the_first(tmp_path: Path) -> None:
    first, second = linear(), linear()
    for graph, weights in ((first, "model.safetensors"), (second, "model-2.safetensors"), (first, "model.safetensors")):
        assert export_source(graph, tmp_path).weights == weights
        assert names_in(tmp_path) == sorted(["model.py", weights])
        assert torch.equal(loaded(tmp_path).get_parameter("0.weight"), graph.module.get_parameter("0.weight"))


@pytest.mark.parametrize("fails", ["model.py", "model-2.safetensors"])
def test_a_failure_while_publishing_leaves_the_old_pair(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = linear()
    export_source(first, tmp_path)
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == fails:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(ExportError, match=r"cannot write .* No space left"):
        export_source(linear(), tmp_path)
    assert names_in(tmp_path) == ["model.py", "model.safetensors"]
    assert torch.equal(loaded(tmp_path).get_parameter("0.weight"), first.module.get_parameter("0.weight"))


def test_a_failure_while_publishing_leaves_no_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(ExportError, match="No space left"):
        export_source(linear(), tmp_path / "new")
    assert names_in(tmp_path) == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert export_source(linear(), tmp_path).weights == "model-2.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == b"other"
    (tmp_path / "model.py").write_text("print('mine')\n")
    with pytest.raises(ExportError, match=r"model\.py was not written by graphgrow"):
        export_source(linear(), tmp_path)
    assert (tmp_path / "model.py").read_text() == "print('mine')\n"
    with pytest.raises(ExportError, match="is a file, wanted a folder"):
        export_source(linear(), tmp_path / "model.py")


def test_swapped_weights_are_refused_when_they_are_read(tmp_path: Path) -> None:
    export_source(linear(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor[:1] for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="keep the two files together"):
        loaded(tmp_path)
