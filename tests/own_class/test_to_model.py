"""gg.to_model: a model of the base's class that computes the grown graph, or a refusal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.own_class import to_model as module
from graphgrow.own_class.numbers import numbers_of
from graphgrow.store.names import import_torchvision
from tests.own_class.models import Decoder

TOKENS = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randint(0, 11, (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "mutations",
    [
        ["widen(layers.0.up, extra=4)"],
        ["split(layers.1.up)", "widen(layers.0.up, extra=1)"],
        ["add-heads(layers.0.attention)"],
        ["deepen(layers.0, kind=copy)"],
        ["deepen(layers.0, kind=copy)", "add-heads(layers.0.attention)", "widen(layers.1.up, extra=3)"],
        ["add-heads(layers.1.attention)", "deepen(layers.1, kind=copy)", "deepen(layers.0, kind=copy)"],
    ],
    ids=str,
)
def test_its_methods_do_what_those_of_the_model_do(mutations: list[str]) -> None:
    model: Any = Decoder().double().eval()
    graph = gg.trace(model, TOKENS)
    grown = gg.apply(graph, mutations)
    result: Any = gg.to_model(grown, model)
    assert type(result) is Decoder
    assert torch.equal(result(OTHERS), grown.module(OTHERS))
    assert torch.allclose(result(OTHERS), model(OTHERS), rtol=0, atol=1e-12)
    assert torch.equal(result.generate(OTHERS, 4), model.generate(OTHERS, 4))
    assert result.head.weight is result.embed.weight
    assert [layer.attention.number for layer in result.layers] == list(range(len(result.layers)))
    assert result.config.num_layers == len(result.layers)
    assert model.config.num_layers == len(model.layers) == 2  # it is not changed


def test_parameters_are_shared_with_the_graph_and_what_it_lacks_is_copied() -> None:
    model: Any = Decoder()
    grown = gg.apply(gg.trace(model, TOKENS), "widen(layers.0.up, extra=4)", share=False)
    result: Any = gg.to_model(grown, model)
    held = {id(parameter) for parameter in grown.module.parameters()}
    assert [name for name, p in result.named_parameters() if id(p) not in held] == ["unused.weight", "unused.bias"]
    assert torch.equal(result.unused.weight, model.unused.weight)
    assert result.unused.weight is not model.unused.weight
    result(TOKENS).sum().backward()
    assert grown.module.get_parameter("layers.0.up.weight").grad is not None


def test_a_wrong_number_that_would_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two heads, twice as wide, each shape fits and the answer is another."""
    model: Any = Decoder().eval()
    grown = gg.apply(gg.trace(model, TOKENS), "split(layers.0.attention.qkv:heads, units=[0, 1])")

    def without_heads(*graphs: Any) -> Mapping[Any, Any]:
        return {origin: number for origin, number in numbers_of(*graphs).items() if origin.keys != ("heads",)}

    right: Any = gg.to_model(grown, model)
    assert right.layers[0].attention.heads == 4
    monkeypatch.setattr(module, "numbers_of", without_heads)
    with pytest.raises(gg.ExportError, match=r"they part at `view.*`, the class gives it .*2"):
        gg.to_model(grown, model)


@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        ("add-skip(layers.0, target=layers.1)", "no place for `layers.1_add_skip"),
        ("deepen(layers.0.down, kind=mlp)", "no place for `layers.0.down_deepen"),
        ("widen(layers.0.attention.qkv:value_width, extra=2)", "too many values to unpack"),  # three parts of a size
        ("widen(layers.0.attention.out, extra=2)", "they part at `"),  # the norm that is written out has a factor then
    ],
)
def test_what_the_class_does_not_do_is_refused(mutation: str, said: str) -> None:
    model: Any = Decoder().eval()
    graph = gg.trace(model, TOKENS)
    with pytest.raises(gg.ExportError, match=said):
        gg.to_model(gg.apply(graph, mutation), model)


def test_layers_that_share_a_number_cannot_grow_apart() -> None:
    class Sharing(Decoder):
        def __init__(self) -> None:
            super().__init__()
            for layer in self.layers:
                layer.attention.__class__ = Shared
                layer.attention.config = self.config

    class Shared(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            q, k, v = (t.view(x.size(0), x.size(1), self.config.heads, -1).transpose(1, 2) for t in (q, k, v))
            attended = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(attended.transpose(1, 2).flatten(2))

    model = Sharing().eval()
    graph = gg.trace(model, TOKENS)
    grown = gg.apply(graph, "add-heads(layers.0.attention)")
    with pytest.raises(gg.ExportError, match=r"config\.heads` would have to be 3 for `view.*` and 2 for `view"):
        gg.to_model(grown, model)
    evenly: Any = gg.to_model(gg.apply(grown, "add-heads(layers.1.attention)"), model)
    assert evenly.config.heads == 3
    assert torch.allclose(evenly(OTHERS), model(OTHERS), atol=1e-5)


def test_convolutions_norms_and_their_buffers() -> None:
    model: Any = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    graph = gg.trace(model, torch.randn(2, 3, 6, 6))
    grown = gg.apply(
        graph,
        [
            "widen(0:group_width, extra=4)",
            "split(3:group_width)",
            "enlarge-kernel(0, to=5)",
            "grow-outputs(6, extra=2)",
        ],
    )
    result: Any = gg.to_model(grown, model)
    assert type(result) is nn.Sequential
    assert result[0].kernel_size == (5, 5)
    assert result[0].out_channels == result[1].num_features == 12
    x = torch.randn(5, 3, 6, 6)
    assert torch.equal(result.train()(x), grown.module.train()(x))
    assert result[1].running_mean is grown.module.get_buffer("1.running_mean")
    assert torch.allclose(result.eval()(x)[:, :3], grown.module.eval()(x)[:, :3])


@pytest.mark.parametrize("padding", ["valid", "same", 0])
def test_a_padding_that_was_a_word_is_that_of_the_grown_layer(padding: Any) -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding), nn.ReLU(), nn.Conv2d(4, 2, 1))
    graph = gg.trace(model, torch.randn(2, 3, 6, 6))
    grown = gg.apply(graph, ["enlarge-kernel(0, to=5)", "widen(0, extra=2)"])
    result: Any = gg.to_model(grown, model)
    assert (type(result[0]), result[0].kernel_size, result[0].out_channels) == (nn.Conv2d, (5, 5), 6)
    x = torch.randn(3, 3, 7, 8)
    assert torch.allclose(result(x), model(x), atol=1e-6)
    assert model[0].padding in (padding, (0, 0))


def test_what_is_tied_to_a_layer_that_is_exchanged_follows() -> None:
    """As the bias of MPNet's head, which two modules hold."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding="valid"), nn.Linear(4, 2)
            self.bias = self.conv.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.conv(x).mean((2, 3)))
            return result

    model: Any = Tied()
    model.conv.note = True  # which the graph's layer does not have: no other layer by it
    graph = gg.trace(model, torch.randn(2, 3, 6, 6))
    for mutations in (["widen(conv, extra=2)"], ["widen(conv, extra=2)", "enlarge-kernel(conv, to=5)"]):
        result: Any = gg.to_model(gg.apply(graph, mutations), model)
        assert result.bias is result.conv.bias
        assert result.bias.shape == (6,)
        x = torch.randn(3, 3, 7, 7)
        assert torch.allclose(result(x), model(x), atol=1e-6)


def test_a_name_is_no_model() -> None:
    with pytest.raises(gg.ExportError, match="the model that was captured, a module, not a str"):
        gg.to_model(gg.trace("graphgrow:mlp"), "graphgrow:mlp")  # type: ignore[arg-type]


class Wider(nn.Module):
    """Another class, which takes the same tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 4), nn.Linear(4, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.embed(tokens))
        return result


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Wider(), r"captured of a Decoder, not of this Wider, grown likewise: widen\(layers.0.up, extra=4\): "),
        (Decoder(3), r"captured of another Decoder, grown likewise: `layers.2.scale` is not there in the graph"),
        (nn.Linear(3, 3), r"captured of a Decoder, not of this Linear, grown likewise: "),
    ],
)
def test_another_model_is_not_taken_for_the_one_that_was_captured(other: nn.Module, said: str) -> None:
    """The message spoke of growth, and of sizes that the class could not have."""
    grown = gg.apply(gg.trace(Decoder().eval(), TOKENS), "widen(layers.0.up, extra=4)")
    with pytest.raises(gg.ExportError, match=f"{said}.*; pass the model that gg.trace was given, and its leaves"):
        gg.to_model(grown, other.eval())


def test_numbers_that_a_leaf_keeps_in_an_object_count() -> None:
    """Its own code is not looked into: with other numbers it would be another operator."""

    class Leaf(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config = config

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.config.heads

    class Net(Decoder):
        def __init__(self) -> None:
            super().__init__()
            self.leaf = Leaf(self.config)
            self.config.heads = 12
            for layer in self.layers:
                layer.down = nn.Linear(12, 8)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.leaf(self.embed(tokens))
            for layer in self.layers:
                x = x + layer.down(layer.up(x).unflatten(-1, (self.config.heads, -1)).flatten(-2))
            result: torch.Tensor = self.head(x)
            return result

    model: Any = Net().eval()
    graph = gg.trace(model, TOKENS, leaves=["leaf"])
    grown = gg.apply(graph, ["widen(layers.0.up:0, extra=4)", "widen(layers.1.up:0, extra=4)"])
    with pytest.raises(gg.ExportError, match="its `config`, of SimpleNamespace, is another one in the class"):
        gg.to_model(grown, model, leaves=["leaf"])


def test_a_sequence_whose_parts_have_names() -> None:
    """Their names were taken for those of layers that growth had put in."""
    layers = OrderedDict(first=nn.Linear(3, 4), act=nn.ReLU(), last=nn.Linear(4, 2))
    model: Any = nn.Sequential(layers)
    x = torch.randn(5, 3)
    grown = gg.apply(gg.trace(model, x), "widen(first, extra=2)")
    result: Any = gg.to_model(grown, model)
    assert result.first.out_features == result.last.in_features == 6
    assert torch.equal(result(x), grown.module(x))


def test_a_part_in_a_mode_of_its_own_stays_in_it() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    model[1].eval()
    grown = gg.apply(gg.trace(model, torch.randn(5, 3)), "widen(0, extra=2)")
    result: Any = gg.to_model(grown, model)
    assert (result.training, result[0].training, result[1].training) == (True, True, False)
    grown.module.eval()
    assert not any(part.training for part in gg.to_model(grown, model).modules())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_grown_language_model_generates_with_its_cache(family: str) -> None:
    pytest.importorskip("transformers")
    import_torchvision()
    from tools.sweep.small_transformers import build_small

    model, inputs = build_small(family, pad_token_id=0, bos_token_id=0, eos_token_id=None)
    layers = "model.layers" if family == "llama" else "transformer.h"
    attention = "self_attn" if family == "llama" else "attn"
    first = "gate_proj" if family == "llama" else "c_fc"
    graph = gg.trace(model, (), inputs)
    grown = gg.apply(
        graph, [f"deepen({layers}.0, kind=copy)", f"widen({layers}.0.mlp.{first}, extra=6)",
                f"add-heads({layers}.1.{attention})"],
    )  # fmt: skip
    result: Any = gg.to_model(grown, model)
    options = {"max_new_tokens": 5, "do_sample": False}
    ids = inputs["input_ids"]
    with_cache = result.generate(ids, use_cache=True, **options)
    assert torch.equal(with_cache, result.generate(ids, use_cache=False, **options))
    assert torch.equal(with_cache, model.generate(ids, **options))


def test_what_dynamo_captured_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(5, 3), way="dynamo")
    with pytest.raises(gg.ExportError, match="captured with Dynamo, which does not keep the model's modules"):
        gg.to_model(gg.apply(graph, "widen(0, extra=1)"), model)


class Late(nn.Module):
    """Puts out two answers in train mode once it is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.last(torch.relu(self.first(x)))
        return (y, y) if self.training and self.first.out_features > 8 else y


@pytest.mark.parametrize("training", [False, True])
def test_a_class_that_has_another_graph_in_one_mode_at_the_grown_sizes_is_refused(training: bool) -> None:
    model = Late().train(training)
    graph = gg.trace(model, torch.randn(4, 3))
    with pytest.raises(gg.ExportError, match="they part at `output`, the class has a OneMode there"):
        gg.to_model(gg.apply(graph, "widen(first, extra=2)"), model)


class Auxiliary(nn.Module):
    """Has a second head in train mode alone, as GoogLeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.trunk = nn.Linear(3, 4), nn.Linear(4, 4)
        self.norm, self.aux, self.head = nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.stem(x))
        y = self.head(torch.relu(self.trunk(x)))
        return (y, self.aux(x)) if self.training else y


@pytest.mark.filterwarnings("ignore:this graph of")
def test_the_mode_that_the_graph_does_not_have_runs_or_the_class_is_refused() -> None:
    """The auxiliary head is in the graph of train mode alone: growth of what it reads went past it in silence."""
    x = torch.randn(5, 3)
    model: Any = Auxiliary().eval()
    graph = gg.trace(model, x)
    beside: Any = gg.to_model(gg.apply(graph, "widen(trunk, extra=2)"), model)
    assert not beside.training
    assert torch.equal(beside.norm.running_mean, model.norm.running_mean)
    assert len(beside.train()(x)) == 2
    said = r"does not run in train mode, for which the graph does not hold, .*\(mat1 and mat2 .*; grow a graph that was"
    with pytest.raises(gg.ExportError, match=said):
        gg.to_model(gg.apply(graph, "widen(stem, extra=2)"), model)
    model.train()
    whole: Any = gg.to_model(gg.apply(gg.trace(model, x), "widen(stem, extra=2)"), model)
    assert whole.aux.in_features == 6
    assert torch.allclose(whole.eval()(x), model.eval()(x), atol=1e-6)


def test_a_tensor_that_the_class_has_no_name_for_is_refused() -> None:
    """No pass puts one beside a layer's own today; one of a user's might."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(5, 3))
    grown = gg.apply(graph, "widen(0, extra=1)", share=False)
    grown.module.get_submodule("0").register_parameter("slope", nn.Parameter(torch.ones(5)))
    with pytest.raises(gg.ExportError, match=r"`0\.slope` of the graph is not there"):
        gg.to_model(grown, model)
