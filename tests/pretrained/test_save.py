"""gg.save_pretrained: a checkpoint of the base's class that answers as the grown graph, or a refusal."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.pretrained import save
from graphgrow.store.names import import_torchvision
from tools.sweep.small_transformers import build_small

SIZES = {"vocab_size": 7, "hidden_size": 6, "intermediate_size": 10, "num_hidden_layers": 2, "num_attention_heads": 2,
         "head_dim": 3, "layer_types": ["full", "sliding"], "norm_eps": 1e-5}  # fmt: skip


class Layer(nn.Module):
    """Attention and a gated MLP, each added to its input."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
        self.head_dim = config.head_dim
        eps = getattr(config, "norm_eps", 1e-5)
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, width, bias=False)
        self.up = nn.Linear(width, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        result: torch.Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return result


class Model(nn.Module):
    """Built from a configuration, and written with it, as models of transformers are; its pooler is never called."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError("the hidden size is no multiple of the heads")
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(n, l) -> (n, l, vocabulary)."""
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        result: torch.Tensor = self.head(x)
        return result

    def save_pretrained(self, folder: Path) -> None:
        """Configuration and tensors."""
        Path(folder).mkdir()
        (Path(folder) / "config.json").write_text(json.dumps(vars(self.config)), encoding="utf-8")
        torch.save(self.state_dict(), Path(folder) / "model.pt")

    @classmethod
    def from_pretrained(cls, folder: Path) -> Model:
        """What was written."""
        config = SimpleNamespace(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        model = cls(config)
        model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        return model.eval()


def base() -> tuple[Model, Graph]:
    torch.manual_seed(0)
    model = Model(SimpleNamespace(**copy.deepcopy(SIZES))).eval()
    return model, gg.trace(model, torch.randint(0, 7, (2, 5)))


GROWTHS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "nothing": ([], {}),
    "layers": (
        ["deepen(layers.0, kind=copy)", "deepen(layers.1, kind=copy)"],
        {"num_hidden_layers": 4, "layer_types": ["full", "full", "sliding", "sliding"]},
    ),
    "widths": (["widen(layers.0.up, extra=3)", "widen(layers.1.up, extra=3)"], {"intermediate_size": 13}),
    "hidden size": (["widen(embed, extra=4)"], {"hidden_size": 10}),
    "vocabulary": (["grow-vocabulary(embed, extra=2)", "grow-outputs(head, extra=2)"], {"vocab_size": 9}),
    "heads": (["add-heads(layers.0)", "add-heads(layers.1)"], {"num_attention_heads": 3}),
    "all": (
        ["widen(embed, extra=2)", "add-heads(layers.0, extra=2)", "add-heads(layers.1, extra=2)",
         "deepen(layers.0, kind=copy)", "grow-vocabulary(embed)", "grow-outputs(head)"],
        {"hidden_size": 8, "num_attention_heads": 4, "num_hidden_layers": 3, "vocab_size": 8,
         "layer_types": ["full", "full", "sliding"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWTHS)
def test_written_read_and_answering_the_same(name: str, tmp_path: Path) -> None:
    texts, changed = GROWTHS[name]
    model, graph = base()
    child = gg.apply(graph, texts)
    if "hidden" in name or name == "all":  # the pooler, which no graph knows, cannot follow
        with pytest.raises(gg.ExportError, match=r"pooler"):
            gg.save_pretrained(child, model, tmp_path / "out")
        del model.pooler
        model.__class__ = type("Poolerless", (Model,), {"__init__": _without_pooler})
    folder = gg.save_pretrained(child, model, tmp_path / "out")
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert found.pop("norm_eps") == pytest.approx(1e-5 * 6 / found["hidden_size"])
    assert found == {key: value for key, value in {**SIZES, **changed}.items() if key != "norm_eps"}
    assert vars(model.config) == SIZES
    loaded = type(model).from_pretrained(folder)
    (ids,), _ = child.inputs.sample(3)
    assert torch.allclose(loaded(ids), child.module(ids), rtol=1e-6, atol=1e-7)


def _without_pooler(self: Model, config: Any) -> None:
    Model.__init__(self, config)
    del self.pooler


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["widen(layers.0.up, extra=3)"], "layers.0.down"),
        (["add-heads(layers.1)"], "layers.1"),
        (["deepen(layers.0:add, kind=mlp)"], "not uniform"),
        (["swap-activation(layers.0:gelu, to=silu)"], "layers.0"),
        (["grow-vocabulary(embed, extra=2)"], "embed.weight|head.weight"),
    ],
)
def test_growth_that_the_class_cannot_have_is_refused(texts: list[str], said: str, tmp_path: Path) -> None:
    model, graph = base()
    with pytest.raises(gg.ExportError, match=said):
        gg.save_pretrained(gg.apply(graph, texts), model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_function_of_the_same_shapes_is_refused(tmp_path: Path) -> None:
    """A dropped activation leaves all shapes as they are: only running both shows it."""
    model, graph = base()
    child = gg.apply(graph, "swap-activation(layers.0:gelu, to=identity)")
    for part in child.module.modules():
        if type(part).__name__ == "Blend":
            part.s.data.fill_(1.0)
    child = gg.apply(child, "settle-activation(layers.0:gelu)")
    with pytest.raises(gg.ExportError, match="is off by"):
        gg.save_pretrained(child, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_of_other_shapes_or_without_numbers_are_refused() -> None:
    graph = gg.trace(nn.Linear(4, 3), torch.randn(2, 4))
    with pytest.raises(gg.ExportError, match=r"output 0 is \(2, 2\) in the checkpoint, not \(2, 3\)"):
        save._compare(graph, nn.Linear(4, 2))

    said = (
        r"the checkpoint's model does not run: mat1 and mat2 shapes cannot be multiplied \(2x4 and 5x3\); its growth is"
    )
    with pytest.raises(gg.ExportError, match=said):  # StableLM, widened, with the rotary width of its new heads
        save._compare(graph, nn.Linear(5, 3))

    class Choice(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).argmax(1)

    with pytest.raises(gg.ExportError, match="puts out no tensor of floating point to compare"):
        save._compare(gg.trace(Choice(4, 3), torch.randn(2, 4)), Choice(4, 3))


def test_a_norm_whose_class_fixes_its_eps_is_refused(tmp_path: Path) -> None:
    model, _ = base()
    del model.config.norm_eps, model.pooler
    graph = gg.trace(model, torch.randint(0, 7, (2, 5)))
    with pytest.raises(gg.ExportError, match="has grown to eps 6e-06, and would have 1e-05"):
        gg.save_pretrained(gg.apply(graph, "widen(embed, extra=4)"), model, tmp_path / "out")


def test_a_model_without_a_configuration(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:mlp")
    with pytest.raises(gg.ExportError, match=r"no `config` and `save_pretrained`"):
        gg.save_pretrained(graph, nn.Linear(2, 2), tmp_path)


def _grown_family(name: str, texts: list[str]) -> tuple[Any, Graph]:
    """A small model of transformers, and its graph grown."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()  # which transformers imports
    pytest.importorskip("transformers")
    model, inputs = build_small(name)
    return model, gg.apply(gg.trace(model, (), inputs), texts)


FAMILIES: dict[str, tuple[list[str], dict[str, int]]] = {
    "gpt2": (
        [*(f"widen(transformer.h.{i}.mlp.c_fc, extra=8)" for i in range(2)), "deepen(transformer.h.0, kind=copy)",
         "grow-vocabulary(transformer.wte, extra=4)"],
        {"n_layer": 3, "n_inner": 136, "vocab_size": 100},
    ),
    "t5": (
        [f"widen({side}.block.{i}.layer.{place}.DenseReluDense.wi, extra=8)"
         for side, place in (("encoder", 1), ("decoder", 2)) for i in range(2)]
        + ["deepen(decoder.block.1, kind=copy)", "grow-vocabulary(encoder.embed_tokens, extra=3)"],  # tied to `shared`
        {"d_ff": 56, "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 99},
    ),
    "phi3": (  # packed projections, and a width of heads that its configuration need not say
        [*(f"add-heads(model.layers.{i}.self_attn)" for i in range(2)), "widen(model.embed_tokens, extra=8)",
         *(f"widen(model.layers.{i}.mlp.gate_up_proj:0, extra=8)" for i in range(2))],
        {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8, "hidden_size": 40, "intermediate_size": 56},
    ),
    "whisper": (
        [*(f"widen(model.encoder.layers.{i}.fc1, extra=8)" for i in range(2)),
         *(f"widen(model.decoder.layers.{i}.fc1, extra=4)" for i in range(2)),
         "deepen(model.encoder.layers.0, kind=copy)"],
        {"encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 56, "decoder_ffn_dim": 52},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_transformers(name: str, tmp_path: Path) -> None:
    texts, changed = FAMILIES[name]
    model, child = _grown_family(name, texts)
    loaded = type(model).from_pretrained(gg.save_pretrained(child, model, tmp_path / "out")).eval()
    assert {key: getattr(loaded.config, key) for key in changed} == changed
    _, inputs = child.inputs.sample(3)
    with torch.no_grad():
        found, wanted, before = child.module(**inputs), loaded(**inputs), model(**inputs)
    assert type(found) is type(wanted) is type(before)
    assert list(found) == list(wanted)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.allclose(found.logits[..., : before.logits.shape[-1]], before.logits, atol=1e-5)
    with pytest.raises(ValueError, match=r"captured with use_cache=False"):
        child.module(**{**inputs, "use_cache": True})


def test_one_tower_of_two_grows(tmp_path: Path) -> None:
    """CLIP's configuration holds one for each tower, here with the same numbers."""
    texts = [*(f"widen(text_model.encoder.layers.{i}.mlp.fc1, extra=8)" for i in range(2)),
             "deepen(vision_model.encoder.layers.1, kind=copy)"]  # fmt: skip
    model, child = _grown_family("clip", texts)
    loaded = type(model).from_pretrained(gg.save_pretrained(child, model, tmp_path / "out")).eval()
    text, vision = loaded.config.text_config, loaded.config.vision_config
    assert (text.intermediate_size, vision.intermediate_size) == (56, 48)
    assert (text.num_hidden_layers, vision.num_hidden_layers) == (2, 3)
    _, inputs = child.inputs.sample(3)
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits_per_text, model(**inputs).logits_per_text, atol=1e-5)


def test_a_llama_of_transformers(tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()  # which transformers imports
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()
    graph = gg.trace(model, (), {"input_ids": torch.randint(0, 19, (2, 7))})
    block = "model.layers.0"
    child = gg.apply(graph, [
        f"add-heads({block}.self_attn, extra=2)", f"widen({block}.mlp.gate_proj, extra=8)",
        "grow-vocabulary(model.embed_tokens, extra=3)", "grow-outputs(lm_head, extra=3)", f"deepen({block}, kind=copy)",
    ])  # fmt: skip
    loaded = AutoModelForCausalLM.from_pretrained(gg.save_pretrained(child, model, tmp_path / "out")).eval()
    config = loaded.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 4)
    assert (config.intermediate_size, config.num_hidden_layers, config.vocab_size) == (32, 2, 22)
    ids = torch.randint(0, 19, (3, 5))
    with torch.no_grad():
        logits = loaded(input_ids=ids).logits
        assert torch.equal(logits, child.module(input_ids=ids).logits)
        assert torch.allclose(logits[..., :19], model(input_ids=ids).logits, atol=1e-6)
    with pytest.raises(gg.ExportError, match="multiple of the number of attention heads"):
        gg.save_pretrained(gg.apply(graph, f"add-heads({block}.self_attn)"), model, tmp_path / "odd")
