"""Capture: the graph computes what the model computes, in both modes, and the model is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import Variable
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.capture.trace import capture
from graphgrow.models import MODELS
from tests.preserved import assert_preserved


def trace(model: nn.Module, *args: torch.Tensor) -> gg.Graph:
    return gg.trace(model, args)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("training", [False, True])
def test_the_graph_computes_the_same_bits(name: str, training: bool) -> None:
    entry = MODELS[name]
    model = entry.factory().train(training)
    graph = gg.trace(model, entry.example())
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    expected = twin(*entry.example())
    torch.manual_seed(1)
    assert torch.equal(graph.module(*entry.example()), expected)


def test_the_model_is_not_changed() -> None:
    model = MODELS["resnet"].factory()
    model.train()
    model.bn.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    attributes = set(vars(model))
    state = torch.get_rng_state()
    graph = gg.trace(model, MODELS["resnet"].example())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert set(vars(model)) == attributes
    assert graph.module.get_submodule("bn").training is False
    assert graph.module.get_submodule("stem").training is True


def test_parameters_are_shared_and_modes_are_not() -> None:
    model = MODELS["resnet"].factory().train()
    graph = gg.trace(model, MODELS["resnet"].example())
    assert graph.module.get_parameter("stem.weight") is model.get_parameter("stem.weight")
    graph.module.eval()
    assert model.training
    assert model.bn.training


class Dropped(nn.Module):
    """Functional dropout whose mode follows the module's, and one that is always on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.dropout(self.inner(x), 0.5, self.training)
        return hidden + F.dropout(x, 0.25, training=True)


def test_functional_dropout_follows_the_mode() -> None:
    model = Dropped().train()
    x = torch.ones(4, 64)
    graph = trace(model, x)
    for training in (True, False, True):
        model.train(training)
        graph.module.train(training)
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        assert torch.equal(graph.module(x), expected)


def test_what_a_value_is_asked_for_is_answered_by_the_example() -> None:
    class Asking(nn.Module):
        def forward(self, x: Any) -> Any:
            assert torch.is_tensor(x)
            assert isinstance(x, torch.Tensor)
            assert not isinstance(x, (nn.Parameter, nn.Buffer))
            assert not hasattr(x, "sizes")
            assert getattr(x, "sizes", None) is None
            height: Any = x.shape[-1]
            size = (height, height) if isinstance(height, int) else height
            parts = x.split(2, dim=-1)
            assert isinstance(parts, (tuple, list))
            return torch.cat(list(parts), -1).reshape(x.shape[0], *size)

    x = torch.randn(2, 4, 4)
    assert torch.equal(capture(Asking(), x, way="fx").module(x), x)


class Shapes(nn.Module):
    """Control flow on shapes, len, iteration, assertions, tensors made from sizes, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        if width != 8:
            raise ValueError("wrong width")
        torch._assert(x.shape[-1] == 8, "wrong width")
        for _ in range(len(x.shape)):
            x = self.proj(x)
        x = x + torch.arange(length, device=x.device).view(1, -1, 1) + torch.tensor([1.0] * 8)
        return x.reshape(batch, length * width)


def test_control_flow_on_shapes_leaves_the_batch_free() -> None:
    model = Shapes()
    graph = trace(model, torch.randn(2, 4, 8))
    assert not set(vars(model)) - set(vars(Shapes()))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 8)
        assert torch.equal(graph.module(x), model(x))


class Rows(nn.Module):
    """`len(x)` wherever `x.shape[0]` could stand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 0 or len(x.shape) != 2:
            raise ValueError("no rows")
        hidden = self.first(x).view(len(x), 2, -1) + torch.arange(len(x)).view(-1, 1, 1)
        centred = hidden - hidden.sum(0) / len(hidden)
        result: torch.Tensor = self.last(torch.cat([centred, torch.ones(len(x), 1, 4)], 1)).flatten(1)
        return result


@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_len_of_a_tensor_leaves_the_batch_free(way: str) -> None:
    model = Rows()
    graph = capture(model, torch.randn(4, 3), way=way).module
    for rows in (2, 4, 7):
        x = torch.randn(rows, 3)
        assert torch.equal(graph(x), model(x))


class TwoGraphs(nn.Module):
    """Another path in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(x) if self.training else self.a(x)


def test_a_model_with_two_graphs_is_captured_in_its_mode_and_says_so() -> None:
    graph = trace(TwoGraphs().eval(), torch.randn(2, 4))
    assert graph.modes == {"eval"}
    assert "train mode" in graph.explain()


class DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_data_dependent_control_flow_is_refused_with_its_place() -> None:
    with pytest.raises(gg.CaptureError, match=r"test_trace.py:\d+.*if x.sum\(\) > 0") as caught:
        trace(DataDependent(), torch.randn(2, 4))
    assert "leaves" in str(caught.value)


def test_a_leaf_is_kept_and_freezes_what_it_touches() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.odd, self.last = nn.Linear(4, 6), DataDependent(), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.odd(self.first(x)))
            return result

    model = Outer()
    x = torch.randn(3, 4)
    with pytest.raises(gg.CaptureError):
        trace(model, x)
    for leaves in ([DataDependent], ["odd"]):
        graph = gg.trace(model, x, leaves=leaves)
        assert torch.equal(graph.module(x), model(x))
        assert torch.equal(graph.module(-x), model(-x))
        group = graph.group("first")
        assert group.frozen is not None
        assert group.frozen.node == "odd"
        assert [*graph.mutations("widen"), *graph.mutations("split")] == []


@pytest.mark.parametrize("leaves", [[nn.Linear, nn.ReLU], ["0", "1"]])
def test_a_leaf_that_has_a_rule_grows(leaves: list[Any]) -> None:
    """What it returned on the example was kept as its answer at every width: groups could grow, and no mutation did."""
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3), leaves=leaves)
    (mutation,) = graph.mutations("widen")
    assert_preserved(graph, gg.apply(graph, mutation))


class Options(nn.Module):
    """Inputs that are not tensors: a number that stays free, and a flag and a mask that the graph is fixed to."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(
        self, x: torch.Tensor, scale: float = 1.0, mask: torch.Tensor | None = None, flip: bool = False
    ) -> torch.Tensor:
        x = self.proj(x) * scale
        x = -x if flip else x
        return x if mask is None else x * mask


def test_numbers_stay_free_and_options_are_fixed() -> None:
    model, x = Options(), torch.randn(2, 4)
    graph = gg.trace(model, x, {"scale": 2.0})
    assert torch.equal(graph.module(x, 3.0), model(x, 3.0))
    assert torch.equal(graph.module(x, scale=0.5, mask=None, flip=False), model(x, 0.5))
    with pytest.raises(ValueError, match="captured with flip=False"):
        graph.module(x, flip=True)
    with pytest.raises(ValueError, match="captured with mask=None"):
        graph.module(x, mask=torch.ones(4))
    flipped = gg.trace(model, (x,), {"flip": True, "mask": torch.ones(4)})
    assert torch.equal(flipped.module(x, 1.0, x[0], True), model(x, 1.0, x[0], True))


def test_a_submodule_called_by_a_keyword_is_refused() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"in": nn.Linear(3, 4)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.parts["in"](x)
            return result

    with pytest.raises(gg.CaptureError, match="rename submodules"):
        gg.trace(Keyword(), torch.randn(2, 3))


def test_buffers_stay_persistent_or_not() -> None:
    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.register_buffer("kept", torch.randn(4))
            self.register_buffer("made", torch.randn(4), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(x) + self.kept * self.made
            return result

    model = Tables()
    graph = gg.trace(model, torch.randn(2, 3))
    grown = gg.apply(graph, "deepen(linear, kind=mlp)")
    assert set(graph.module.state_dict()) == set(model.state_dict())
    assert {name for name in grown.module.state_dict() if "deepen" not in name} == set(model.state_dict())


def test_a_module_that_the_model_does_not_hold_is_traced_into() -> None:
    table = {"relu": nn.ReLU(), "both": nn.Sequential(nn.Tanh(), nn.Hardtanh())}

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(table["both"](table["relu"](self.first(x))))
            return result

    torch.manual_seed(0)
    model, x = Looks(), torch.randn(2, 3)
    graph = gg.trace(model, x, way="fx")
    assert torch.equal(graph.module(x), model(x))
    assert_preserved(graph, gg.apply(graph, "widen(first, extra=2)"))


def test_a_tensor_made_of_a_size_keeps_its_number() -> None:
    class Window(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(16, 4))
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            span = torch.tensor(x.shape[1])
            rows = self.table[8 - span : 8 + span]
            scale = torch.sqrt(torch.tensor(self.first.out_features, dtype=torch.float) * 2)
            hidden = self.first(x) / scale.to(x.dtype)
            result: torch.Tensor = self.last(hidden + rows.mean(0))
            return result

    torch.manual_seed(0)
    model, x = Window(), torch.randn(2, 3, 3)
    graph = gg.trace(model, x, way="fx")
    for sizes in ((2, 3, 3), (5, 3, 3), (2, 4, 3)):
        x = torch.randn(sizes)
        assert torch.equal(graph.module(x), model(x))
    assert "table" in graph.group("first").members
    assert_preserved(graph, gg.apply(graph, "widen(first, extra=2)"))


class Late(nn.Module):
    """Registers in another order than it calls, and at several depths."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.gain = nn.Linear(4, 4), nn.Parameter(torch.full((4,), 0.5))
        self.body = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 4))
        self.shift = nn.Parameter(torch.ones(4))
        self.stem = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body[0](self.body[1](self.stem(x))) * self.gain + self.shift)
        return y


def test_names_stand_in_the_models_own_order() -> None:
    """An optimizer's state, and a loop that zips two models, know parameters by their position alone."""
    torch.manual_seed(0)
    model, x = Late(), torch.randn(3, 4)
    graph = gg.trace(model, x)
    assert list(graph.module.state_dict()) == list(model.state_dict())
    adam = torch.optim.Adam(model.parameters())
    model(x).square().sum().backward()
    adam.step()
    again = torch.optim.Adam(graph.module.parameters())
    again.load_state_dict(adam.state_dict())
    for parameter in model.parameters():
        assert torch.equal(again.state[parameter]["exp_avg"], adam.state[parameter]["exp_avg"])
    grown = gg.apply(graph, ["deepen(body.1, kind=mlp)", "widen(body.1, extra=2)"])
    old = [name for name in grown.module.state_dict() if name in model.state_dict()]
    assert old == list(model.state_dict())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.MultiMarginLoss], ids=["cross entropy", "margin"])
def test_a_loss_that_the_forward_makes_is_traced_through(loss: type[nn.Module]) -> None:
    """It is no part of the model, and holds no tensor: a buffer for weights of classes is empty."""

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores = self.last(nn.ReLU()(self.first(x)))
            return loss()(scores, labels), scores

    torch.manual_seed(0)
    model, x, labels = Scored(), torch.randn(5, 3), torch.tensor([0, 3, 1, 2, 2])
    graph = gg.trace(model, (x, labels), way="fx")
    assert torch.equal(graph.module(x, labels)[0], model(x, labels)[0])
    child = gg.apply(graph, "widen(first, extra=2)")
    torch.testing.assert_close(child.module(x, labels), model(x, labels))


class Tries(nn.Module):
    """Layers that may take lengths, as SpeechBrain's, are given some at first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.LeakyReLU(), nn.Linear(4, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            try:
                x = layer(x, lengths=None)
            except TypeError:
                x = layer(x)
        return x


def test_a_call_that_the_model_tries_and_gives_up_leaves_no_trace() -> None:
    """It stayed in the graph, whose first run was a TypeError."""
    model, x = Tries(), torch.randn(2, 3)
    graph = gg.trace(model, x)
    assert torch.equal(graph.module(x), model(x))
    assert sum(node.op == "call_module" for node in graph.module.graph.nodes) == 3


class Wrapped(nn.Module):
    """As it was written before torch 0.4."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = Variable(self.first(Variable(x)).relu(), requires_grad=False)
        result: torch.Tensor = self.last(hidden + Variable(torch.ones(4)))
        return result


def test_a_variable_is_its_tensor() -> None:
    model, x = Wrapped(), torch.randn(2, 3)
    graph = gg.trace(model, x, way="fx")
    assert torch.equal(graph.module(x), model(x))
    graph.module(x).sum().backward()
    assert model.last.weight.grad is not None
    assert model.first.weight.grad is None  # as in the model, where a Variable is detached
    assert torch.equal(Variable(x), x)
    assert "__new__" not in vars(Variable)
