"""The configuration and the numbers of a class that no operator reads, where growth is even."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import graphgrow as gg
from graphgrow.store.names import import_torchvision


def test_the_configuration_says_what_has_grown_evenly(tmp_path: Path) -> None:
    """The loss of the class asks for the vocabulary there, and its own checkpoints did not load."""
    pytest.importorskip("transformers")
    import_torchvision()
    from tools.sweep.small_transformers import build_small

    model, inputs = build_small("llama")
    graph = gg.trace(model, (), inputs)
    evenly = [f"widen(model.layers.{i}.mlp.gate_proj, extra=6)" for i in range(2)]
    vocabulary = ["grow-vocabulary(model.embed_tokens, extra=4)", "grow-outputs(lm_head, extra=4)"]
    result: Any = gg.to_model(gg.apply(graph, [*evenly, *vocabulary]), model)
    assert (result.config.vocab_size, result.config.intermediate_size, model.config.vocab_size) == (100, 54, 96)
    assert result(**inputs, labels=inputs["input_ids"]).loss.isfinite()
    result.save_pretrained(tmp_path)
    kind: Any = type(model)
    loaded = kind.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**inputs).logits, result(**inputs).logits)
    unevenly: Any = gg.to_model(gg.apply(graph, evenly[:1]), model)
    assert unevenly.config.to_dict() == model.config.to_dict()


def test_numbers_of_the_class_that_no_operator_reads_follow_where_they_are_even(tmp_path: Path) -> None:
    """BERT's loss asks `num_labels` of the model; the MLPs have grown apart, which is no matter of the classes."""
    pytest.importorskip("transformers")
    import_torchvision()
    from tools.sweep.small_transformers import build_small

    built, inputs = build_small("bert")
    model: Any = built
    model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    graph = gg.trace(model, (), inputs)
    evenly = ["grow-outputs(classifier, extra=2)", "grow-vocabulary(bert.embeddings.word_embeddings, extra=4)"]
    apart = "widen(bert.encoder.layer.0.intermediate.dense, extra=6)"
    for mutations in (evenly, [*evenly, apart]):
        result: Any = gg.to_model(gg.apply(graph, mutations), model)
        assert (result.num_labels, result.config.num_labels, result.config.vocab_size) == (4, 4, 100)
        assert result.config.intermediate_size == 48
        assert result.config.id2label == {0: "no", 1: "yes", 2: "LABEL_2", 3: "LABEL_3"}
        assert result(**inputs, labels=torch.tensor([3, 1])).loss.isfinite()
    assert (model.num_labels, model.config.label2id) == (2, {"no": 0, "yes": 1})
    uniform: Any = gg.to_model(gg.apply(graph, evenly), model)
    uniform.save_pretrained(tmp_path)
    assert torch.equal(type(uniform).from_pretrained(tmp_path).eval()(**inputs).logits, uniform(**inputs).logits)


def test_the_configuration_has_the_heads_that_the_operators_read() -> None:
    """Phi-3's packed map has the same shape with wider heads instead of more, which a wider stream suggests."""
    pytest.importorskip("transformers")
    import_torchvision()
    from tools.sweep.small_transformers import build_small

    built, inputs = build_small("phi3")
    model: Any = built
    heads = [f"add-heads(model.layers.{number}.self_attn)" for number in range(2)]
    grown = gg.apply(gg.trace(model, (), inputs), [*heads, "widen(model.embed_tokens, extra=16)"])
    result: Any = gg.to_model(grown, model)
    assert (result.config.hidden_size, result.config.num_attention_heads) == (48, 6)
    assert result.config.num_key_value_heads == 3
    assert torch.allclose(result(**inputs).logits, model(**inputs).logits, atol=1e-5)
