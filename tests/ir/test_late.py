"""Graph modules whose code is written when it is first asked for."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.ir.late import LateCode


def late() -> tuple[LateCode, nn.Sequential]:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    return LateCode({"0": model[0], "1": model[1]}, fx.symbolic_trace(model).graph), model


def written(module: nn.Module) -> bool:
    return "_code" in vars(module)


def test_code_is_written_by_the_first_call() -> None:
    module, model = late()
    x = torch.randn(2, 3)
    assert not written(module)
    assert torch.equal(module(x), model(x))
    assert written(module)
    assert torch.equal(module(x), model(x))


def test_readers_find_the_code_as_in_any_graph_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    plain = fx.symbolic_trace(model)
    assert late()[0].code == plain.code
    assert str(late()[0]) == str(fx.GraphModule(model, plain.graph, "GraphModule"))
    assert inspect.signature(late()[0].forward) == inspect.signature(plain.forward)
    assert not hasattr(late()[0], "no_such_thing")


def test_an_edited_graph_is_run_as_it_is_now() -> None:
    module, model = late()
    x = torch.randn(2, 3)
    assert torch.equal(module(x), model(x))
    relu = next(node for node in module.graph.nodes if node.target == "1")
    relu.replace_all_uses_with(relu.all_input_nodes[0])
    module.graph.erase_node(relu)
    module.postpone()
    assert not written(module)
    assert torch.equal(module(x), model[0](x))


def test_one_module_writes_no_code_for_another() -> None:
    first, second = late()[0], late()[0]
    first(torch.randn(2, 3))
    assert not written(second)


def test_an_error_is_raised_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    module, _ = late()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            module(torch.randn(2, 5))
    assert capsys.readouterr().err == ""


def test_copies_pickles_and_exports_run() -> None:
    x = torch.randn(2, 3)
    for again in (copy.deepcopy, copy.copy, _pickled):
        module, model = late()
        twin: Any = again(module)
        assert torch.equal(twin(x), module(x))
        assert torch.equal(twin(x), model(x).detach())
    module, model = late()
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), model(x))


class Annotated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def test_a_captured_model_whose_annotations_are_text_is_pickled() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Annotated())
    graph = gg.trace(model, torch.randn(2, 3))
    x = torch.randn(5, 3)
    assert torch.equal(_pickled(graph.module)(x), model(x))
    assert "torch.Tensor" in {str(node.type) for node in gg.trace(Annotated(), x).module.graph.nodes}


class Guarded(nn.Module):
    """Decides by a size, is given a list and a flag, and writes into a row."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, xs: list[torch.Tensor], double: bool = False) -> torch.Tensor:
        h = self.up(xs[0] + xs[1])
        h[0] = 1.0
        if h.shape[0] > 2:
            h = h * 2
        result: torch.Tensor = self.down(torch.relu(h)) * (2 if double else 1)
        return result


def test_a_model_with_checks_is_pickled_with_them() -> None:
    torch.manual_seed(0)
    model, xs = Guarded(), [torch.randn(4, 3), torch.randn(4, 3)]
    graph = gg.trace(model, (xs, True))
    grown = gg.apply(graph, "widen(up, extra=2)").module
    for again in (copy.deepcopy, _pickled, lambda module: _pickled(_pickled(module))):
        twin = again(grown)
        assert torch.equal(twin(xs, True), grown(xs, True))
        with pytest.raises(ValueError, match="decides by the sizes"):
            twin([xs[0][:2], xs[1][:2]], True)
        with pytest.raises(ValueError, match="captured with double=True"):
            twin(xs, False)
        with pytest.raises(ValueError, match="holds for xs of the form"):
            twin([*xs, xs[0]], True)
    assert "wrap" not in grown.code


class Positions(nn.Module):
    """A table that is cut by the length of the input, in a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 3))
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.table[: x.size(1)]
        return x + self.inner(torch.ops.aten.tanh.default(x))


def test_a_graph_is_pickled_with_its_nodes_and_their_names() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Positions(), nn.Linear(3, 2)), torch.randn(2, 5, 3)
    graph = gg.apply(gg.trace(model, x), ["deepen(0.inner.1, kind=mlp)", "widen(0.inner.0, extra=2)"])
    twin = pickle.loads(pickle.dumps(graph))
    assert torch.equal(twin.module(x), graph.module(x))
    assert torch.equal(twin.module(x[:, :3]), graph.module(x[:, :3]))
    assert twin.text() == graph.text()
    assert list(twin.module.state_dict()) == list(graph.module.state_dict())
    assert [str(m) for m in twin.mutations()] == [str(m) for m in graph.mutations()]
    grown = [gg.apply(one, "deepen(0:add@2, kind=mlp)", seed=3) for one in (twin, graph)]
    assert grown[0].text() == grown[1].text()
    assert torch.equal(grown[0].module(x), grown[1].module(x))


def test_classes_that_only_the_writer_knows_are_not_asked_for() -> None:
    class Local(nn.Sequential):
        pass

    x = torch.randn(2, 3)
    graph = gg.trace(Local(nn.Linear(3, 4), nn.ReLU()), x)
    assert torch.equal(_pickled(graph.module)(x), graph.module(x))
    made = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU())
    graph = gg.trace(made, x)
    assert torch.equal(_pickled(graph.module)(x), graph.module(x))


def _pickled(module: nn.Module) -> Any:
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


def test_modules_are_found_as_torch_finds_them() -> None:
    module = gg.trace("graphgrow:resnet").module
    assert isinstance(module, LateCode)
    for path, part in module.named_modules(remove_duplicate=False):
        assert module.get_submodule(path) is part
    part = nn.Identity()
    object.__setattr__(module.get_submodule("stages"), "aside", part)  # an attribute, and no child
    assert module.get_submodule("stages.aside") is part
    for wrong in ("stages.9", "stages.0.0.", "no.such.thing", "stages.training"):
        with pytest.raises(AttributeError) as mine:
            module.get_submodule(wrong)
        with pytest.raises(AttributeError) as torchs:
            nn.Module.get_submodule(module, wrong)
        assert str(mine.value) == str(torchs.value)


def test_a_cast_leaves_complex_constants_complex() -> None:
    """As it does in the model, which holds them as an attribute, and where the cast passes them by."""

    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.turns = nn.Linear(4, 6), torch.polar(torch.ones(3), torch.arange(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pairs = torch.view_as_complex(self.layer(x).float().unflatten(-1, (3, 2)))
            return torch.view_as_real(pairs * self.turns).flatten(1)

    model, x = Rotated().eval(), torch.randn(2, 4)
    graph = gg.trace(model, x)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        wanted = model.to(dtype)(x.to(dtype))
        assert torch.equal(graph.module.to(dtype)(x.to(dtype)), wanted)
    assert graph.module.turns.dtype is torch.complex64
    assert graph.module.to("meta").turns.is_meta
