"""Models that torch.fx does not trace and Dynamo does: called, switched and grown like the original."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import graphgrow as gg


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None
    cache: Any = None


class Cache:
    pass


class Keywords(nn.Module):
    """Keywords beside the signature, a functional dropout, an output of its own class, and a cache by default."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, use_cache: bool = True, **more: Any
    ) -> Answer:
        x = self.table(ids) * self.scale
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        steps = 0
        while steps < len(x.shape):
            steps += 1
        h = F.dropout(F.relu(self.up(x)), 0.5, self.training)
        y = x + self.down(h) * int(steps > 1)
        places = torch.arange(ids.shape[1], device=ids.device)
        y = y + places.to(y.dtype).unsqueeze(-1)
        return Answer(self.head(y), y if more.get("hidden") else None, Cache() if use_cache else None)


class ByWidth(nn.Module):
    """A layer whose name is spelled with a size, which a proxy is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({f"of{width}": nn.Linear(width, 4) for width in (3, 5)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers[f"of{x.shape[-1]}"](x)
        return result


IDS = torch.arange(12).reshape(2, 6)


def model() -> Keywords:
    torch.manual_seed(0)
    return Keywords().eval()


@pytest.mark.parametrize("way", ["fx", "dynamo"])
def test_keywords_classes_and_modes_stay(way: str) -> None:
    original = model()
    graph = gg.trace(original, (), {"ids": IDS, "mask": torch.ones(2, 6), "hidden": True}, way=way)
    assert graph.way == way
    assert graph.modes == {"train", "eval"}
    assert "use_cache=False" in graph.explain()
    ids, mask = torch.randint(0, 20, (3, 9)), torch.rand(3, 9)  # neither size is the example's
    for training in (False, True):
        graph.module.train(training)
        original.train(training)
        torch.manual_seed(1)
        found = graph.module(ids, mask=mask, hidden=True)
        torch.manual_seed(1)
        wanted = original(ids, mask, use_cache=False, hidden=True)
        assert type(found) is Answer
        assert found.hidden is not None
        assert wanted.hidden is not None
        assert torch.equal(found.logits, wanted.logits)
        assert torch.equal(found.hidden, wanted.hidden)
        assert found.cache is None
    with pytest.raises(ValueError, match="captured with use_cache=False"):
        graph.module(ids, mask=mask, use_cache=True, hidden=True)
    with pytest.raises(ValueError, match=r"captured with hidden=True|of the form \{'hidden': True\}"):
        graph.module(ids, mask=mask)


def test_names_ties_and_persistence_stay() -> None:
    original = model()
    graph = gg.trace(original, IDS)
    module: Any = graph.module
    assert module.table.weight is original.table.weight
    assert module.head.weight is module.table.weight
    assert set(module.state_dict()) == set(original.state_dict())
    grown = gg.apply(graph, ["widen(up, extra=3)", "split(up, units=[1])"])
    assert gg.verify(graph, grown).preserved
    assert grown.module.get_parameter("head.weight") is grown.module.get_parameter("table.weight")


def test_the_ways_can_be_chosen() -> None:
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    first, second = gg.trace(plain, x), gg.trace(plain, x, way="dynamo")
    assert (first.way, second.way) == ("fx", "dynamo")
    assert [(n.op, n.target) for n in second.module.graph.nodes if n.op == "call_module"] == [
        (n.op, n.target) for n in first.module.graph.nodes if n.op == "call_module"
    ]
    assert gg.verify(second, gg.apply(second, "widen(0, extra=2)")).preserved
    by_width = gg.trace(ByWidth(), x)
    assert by_width.way == "dynamo"
    assert "torch.fx could not capture it" in by_width.explain()
    assert "mark it as a leaf" not in by_width.explain()  # it was captured all the same
    with pytest.raises(gg.CaptureError, match="cannot be traced"):
        gg.trace(ByWidth(), x, way="fx")
    with pytest.raises(gg.CaptureError, match="there are auto, fx, dynamo"):
        gg.trace(plain, x, way="ts")


def test_the_model_and_its_inputs_are_left_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.seen: Any = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x.mean()
            result: torch.Tensor = self.norm(x)
            return result

    original, x = Counting().train(), torch.randn(4, 3)
    before = {name: t.clone() for name, t in original.state_dict().items()}
    gg.trace(original, x, way="dynamo")
    assert all(torch.equal(t, before[name]) for name, t in original.state_dict().items())
    assert original.training
    assert not hasattr(x, "_dynamo_weak_dynamic_indices")
    assert "forward" not in original.norm.__dict__
    assert original.seen is None


def test_sizes_that_were_not_seen_to_agree_are_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            weight = 2.0 if x.shape[1] == 5 else 3.0
            return self.linear(x) * weight

    graph = gg.trace(Branches(), torch.randn(2, 5, 4), way="dynamo")
    assert "sizes that stay those of the example: x (axis 1, 2)" in graph.explain()
    assert graph.module(torch.randn(7, 5, 4)).shape == (7, 5, 4)
    with pytest.raises(ValueError, match=r"for x of shape \(any, 5, 4\), not \(2, 6, 4\)"):
        graph.module(torch.randn(2, 6, 4))


def test_a_batch_of_one_is_no_constant() -> None:
    original = model()
    graph = gg.trace(original, IDS[:1])
    ids = torch.randint(0, 20, (4, 3))
    assert torch.equal(graph.module(ids).logits, original(ids).logits)
    assert torch.equal(graph.module(ids[:1]).logits, original(ids[:1]).logits)


def test_gradients_stop_where_they_did() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            with torch.no_grad():
                h = self.a(x)
            return self.b(h) + h

    torch.manual_seed(0)
    original, x = Partly(), torch.randn(2, 3)
    graph = gg.trace(original, x, way="dynamo")
    graph.module(x).sum().backward()
    assert original.a.weight.grad is None
    assert original.b.weight.grad is not None


def test_a_way_that_only_compiled_models_go_is_not_taken() -> None:
    """As transformers' Mamba, which takes a scan over a piece of code where it is compiled."""

    class Scanning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.use_associative_scan = True
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.linear(x)
            if self.use_associative_scan and torch.compiler.is_compiling():
                x = torch.func.vmap(torch.cumsum, in_dims=(0, None))(x, 0)
            return x.cumsum(-1)

    torch.manual_seed(0)
    original, x = Scanning(), torch.randn(2, 3)
    graph = gg.trace(original, x, way="dynamo")
    assert torch.equal(graph.module(x), original(x))
    assert original.use_associative_scan


def test_checkpointed_regions_are_opened() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            return x + checkpoint(lambda y: self.b(F.relu(self.a(y))), x, use_reentrant=False)

    torch.manual_seed(0)
    original, x = Checkpointed(), torch.randn(2, 3)
    graph = gg.trace(original, x, way="dynamo")
    assert torch.equal(graph.module(x), original(x))
    assert gg.verify(graph, gg.apply(graph, "widen(a, extra=2)")).preserved


def test_containers_in_and_out() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, batch: dict[str, Any], pair: tuple[torch.Tensor, torch.Tensor]) -> OrderedDict[str, Any]:
            y = self.linear(batch["x"]) * batch["factor"] + pair[1]
            return OrderedDict(y=y, both=[y, {"z": pair[0]}])

    torch.manual_seed(0)
    original, x = Nested(), torch.randn(2, 3)
    graph = gg.trace(original, ({"x": x, "factor": 2.0}, (x, x)), way="dynamo")
    found, wanted = (m({"x": 2 * x, "factor": 2.0}, (x, 3 * x)) for m in (graph.module, original))
    assert type(found) is OrderedDict
    assert torch.equal(found["y"], wanted["y"])
    assert torch.equal(found["both"][1]["z"], x)
    with pytest.raises(ValueError, match=r"captured with factor=2\.0"):
        graph.module({"x": x, "factor": 3.0}, (x, x))


def test_what_neither_way_captures_is_told_with_its_place() -> None:
    class Data(nn.Module):
        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(
        gg.CaptureError, match=r"Dynamo finds no graph either: .*test_fallback.py:\d+: if x.sum\(\) > 0"
    ):
        gg.trace(Data(), torch.randn(2, 3))


def test_leaves_stay_one_node() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.erfcx(self.linear(x))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = nn.Linear(3, 3), Inner()

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            return self.inner(self.first(x))

    graph = gg.trace(Outer(), torch.randn(2, 3), leaves=[Inner], way="dynamo")
    assert [str(n.target) for n in graph.module.graph.nodes if n.op == "call_module"] == ["first", "inner"]
    assert "Inner has no axis rule" in graph.explain()


def test_hooks_of_layers_run_once() -> None:
    torch.manual_seed(0)
    original = model()
    original.up.register_forward_hook(lambda _module, _args, out: out * 2)
    graph = gg.trace(original, IDS, way="dynamo")
    assert torch.equal(graph.module(IDS).logits, original(IDS).logits)


def test_what_is_written_into_a_tensor_by_its_index_is_read() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            mask = torch.ones(x.shape[0], x.shape[1])
            mask[:, :2] = 0
            return self.linear(x) * mask.unsqueeze(-1)

    torch.manual_seed(0)
    original, x = Masked(), torch.randn(2, 5, 4)
    graph = gg.trace(original, x, way="dynamo")
    assert torch.equal(graph.module(x), original(x))
    assert not graph.module(x)[:, :2].any()


def test_tensors_that_the_modes_use_in_another_order_are_no_other_graph() -> None:
    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.randn(4)) for _ in range(2))

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            unused = self.b * 2 if self.training else self.a * 2
            assert unused.shape == (4,)
            return F.dropout(x * self.a + self.b, 0.5, self.training)

    torch.manual_seed(0)
    original, x = Ordered(), torch.randn(2, 4)
    graph = gg.trace(original, x, way="dynamo")
    assert graph.modes == {"train", "eval"}
    assert torch.equal(graph.module.eval()(x), original.eval()(x))


class OwnDropPath(nn.Module):
    """Stochastic depth as libraries write it anew."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        kept = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1)) >= self.drop_prob
        return x / (1 - self.drop_prob) * kept


def test_stochastic_depth_of_whatever_library_stays_live() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.drop_path = OwnDropPath(0.5)

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            x = self.first(x)
            return self.third(x + self.drop_path(F.relu(self.second(x))))

    torch.manual_seed(0)
    original, x = Residual(), torch.randn(16, 3)
    for way in ("fx", "dynamo"):
        graph = gg.trace(original, x, way=way)
        assert graph.modes == {"train", "eval"}
        grown = gg.apply(graph, ["widen(first, extra=2)", "split(first, units=[0])"])
        assert gg.verify(graph, grown).preserved
        for module in (graph.module, grown.module):
            assert torch.equal(module.eval()(x), module(x))
            torch.manual_seed(1)
            found = module.train()(x)
            torch.manual_seed(1)
            assert torch.allclose(found, original.train()(x), atol=1e-6)
            assert not torch.allclose(found, module.eval()(x), atol=1e-3)
