"""Small models of Hugging Face transformers, a family a line: built from a configuration, with random weights.

Nothing is downloaded. `transformers:NAME` stands for a row in the sweep.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from graphgrow.errors import ModelError
from graphgrow.store.names import import_torchvision

TRANSFORMERS = "transformers"
Inputs = dict[str, torch.Tensor]
_VOCABULARY = 96


def _tokens(generator: torch.Generator) -> Inputs:
    return {"input_ids": torch.randint(3, _VOCABULARY, (2, 10), generator=generator)}


def _masked(generator: torch.Generator) -> Inputs:
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 7:] = 0
    return {**_tokens(generator), "attention_mask": mask}


def _pairs(generator: torch.Generator) -> Inputs:
    return {**_tokens(generator), "decoder_input_ids": torch.randint(3, _VOCABULARY, (2, 7), generator=generator)}


def _image(generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}


def _larger_image(generator: torch.Generator) -> Inputs:
    """Of which reduced keys are still several: over a single one a softmax is 1, and queries are of no effect."""
    return {"pixel_values": torch.randn(2, 3, 64, 64, generator=generator)}


def _image_and_text(generator: torch.Generator) -> Inputs:
    return {**_tokens(generator), **_image(generator)}


def _waveform(generator: torch.Generator) -> Inputs:
    return {"input_values": torch.randn(2, 800, generator=generator)}


def _spectrogram(generator: torch.Generator) -> Inputs:
    return {
        "input_features": torch.randn(2, 16, 40, generator=generator),
        "decoder_input_ids": torch.randint(3, _VOCABULARY, (2, 7), generator=generator),
    }


def _layout(generator: torch.Generator) -> Inputs:
    corners = torch.randint(0, 50, (2, 10, 2), generator=generator)
    return {**_tokens(generator), "bbox": torch.cat([corners, corners + 20], -1)}


def _series(generator: torch.Generator) -> Inputs:
    return {"past_values": torch.randn(2, 32, 2, generator=generator)}


@dataclass(frozen=True)
class Family:
    """A family of models: the classes of model and configuration, the configuration's values, and its inputs."""

    model: str
    config: str
    values: Mapping[str, Any]
    inputs: Callable[[torch.Generator], Inputs]


_SIZES = {
    "vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
_VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}
_BART = {
    "vocab_size": _VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
_T5 = {
    "vocab_size": _VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
}  # fmt: skip
_WAVE = {
    "vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2, "apply_spec_augment": False,
}  # fmt: skip
_TOWERS = {"text_config": {**_SIZES, "projection_dim": 24}, "vision_config": {**_VISION, "projection_dim": 24}}
_GPT2 = {"vocab_size": _VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
         "bos_token_id": 0, "eos_token_id": 2}  # fmt: skip
_STAGES = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]}

FAMILIES: dict[str, Family] = {
    "albert": Family("AlbertForMaskedLM", "AlbertConfig", {**_SIZES, "embedding_size": 16}, _masked),
    "bart": Family("BartForConditionalGeneration", "BartConfig", _BART, _pairs),
    "beit": Family("BeitForImageClassification", "BeitConfig", {**_VISION, "use_relative_position_bias": True}, _image),
    "bert": Family("BertForSequenceClassification", "BertConfig", _SIZES, _masked),
    "blenderbot": Family("BlenderbotForConditionalGeneration", "BlenderbotConfig", _BART, _pairs),
    "bloom": Family("BloomForCausalLM", "BloomConfig",
                    {"vocab_size": _VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}, _tokens),
    "clip": Family("CLIPModel", "CLIPConfig", {**_TOWERS, "projection_dim": 24}, _image_and_text),
    "cohere": Family("CohereForCausalLM", "CohereConfig", _GROUPED, _tokens),
    "convnext": Family("ConvNextForImageClassification", "ConvNextConfig", _STAGES, _image),
    "convnextv2": Family("ConvNextV2ForImageClassification", "ConvNextV2Config", _STAGES, _image),
    "deberta": Family("DebertaForSequenceClassification", "DebertaConfig",
                      {**_SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _masked),
    "deberta-v2": Family("DebertaV2ForSequenceClassification", "DebertaV2Config",
                         {**_SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _masked),
    "deit": Family("DeiTForImageClassification", "DeiTConfig", _VISION, _image),
    "dinov2": Family("Dinov2ForImageClassification", "Dinov2Config", _VISION, _image),
    "distilbert": Family("DistilBertForSequenceClassification", "DistilBertConfig",
                         {"vocab_size": _VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
                          "max_position_embeddings": 64}, _masked),
    "electra": Family("ElectraForSequenceClassification", "ElectraConfig", {**_SIZES, "embedding_size": 16}, _masked),
    "falcon": Family("FalconForCausalLM", "FalconConfig",
                     {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                      "bos_token_id": 0, "eos_token_id": 2}, _tokens),
    "gemma": Family("GemmaForCausalLM", "GemmaConfig", _GROUPED, _tokens),
    "gemma2": Family("Gemma2ForCausalLM", "Gemma2Config", {**_GROUPED, "query_pre_attn_scalar": 8}, _tokens),
    "gpt-bigcode": Family("GPTBigCodeForCausalLM", "GPTBigCodeConfig", _GPT2, _tokens),
    "gpt-neo": Family("GPTNeoForCausalLM", "GPTNeoConfig",
                      {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
                       "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1]],
                       "bos_token_id": 0, "eos_token_id": 2}, _tokens),
    "gpt-neox": Family("GPTNeoXForCausalLM", "GPTNeoXConfig", _SIZES, _tokens),
    "gpt2": Family("GPT2LMHeadModel", "GPT2Config", _GPT2, _tokens),
    "gptj": Family("GPTJForCausalLM", "GPTJConfig", {**_GPT2, "rotary_dim": 4}, _tokens),
    "granite": Family("GraniteForCausalLM", "GraniteConfig", _GROUPED, _tokens),
    "hubert": Family("HubertForCTC", "HubertConfig", _WAVE, _waveform),
    "layoutlm": Family("LayoutLMForTokenClassification", "LayoutLMConfig",
                       {**_SIZES, "max_2d_position_embeddings": 128}, _layout),
    "llama": Family("LlamaForCausalLM", "LlamaConfig", _GROUPED, _tokens),
    "mamba": Family("MambaForCausalLM", "MambaConfig",
                    {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, _tokens),
    "marian": Family("MarianMTModel", "MarianConfig", {**_BART, "decoder_vocab_size": _VOCABULARY}, _pairs),
    "mbart": Family("MBartForConditionalGeneration", "MBartConfig", _BART, _pairs),
    "mistral": Family("MistralForCausalLM", "MistralConfig", _GROUPED, _tokens),
    "mixtral": Family("MixtralForCausalLM", "MixtralConfig", {**_GROUPED, "num_local_experts": 4}, _tokens),
    "mobilevit": Family("MobileViTForImageClassification", "MobileViTConfig",
                        {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
                         "image_size": 64, "num_attention_heads": 4}, _image),
    "modernbert": Family("ModernBertForMaskedLM", "ModernBertConfig",
                         {**_SIZES, "cls_token_id": 0, "sep_token_id": 2}, _masked),
    "mpnet": Family("MPNetForMaskedLM", "MPNetConfig", _SIZES, _masked),
    "mpt": Family("MptForCausalLM", "MptConfig",
                  {"vocab_size": _VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}, _tokens),
    "mt5": Family("MT5ForConditionalGeneration", "MT5Config", _T5, _pairs),
    "nystromformer": Family("NystromformerForMaskedLM", "NystromformerConfig",
                            {**_SIZES, "segment_means_seq_len": 10, "num_landmarks": 10}, _masked),
    "olmo": Family("OlmoForCausalLM", "OlmoConfig", _GROUPED, _tokens),
    "olmo2": Family("Olmo2ForCausalLM", "Olmo2Config", _GROUPED, _tokens),
    "opt": Family("OPTForCausalLM", "OPTConfig",
                  {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                   "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 32, "bos_token_id": 0,
                   "eos_token_id": 2}, _tokens),
    "patchtst": Family("PatchTSTForRegression", "PatchTSTConfig",
                       {"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8,
                        "d_model": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "ffn_dim": 48,
                        "num_targets": 2}, _series),
    "pegasus": Family("PegasusForConditionalGeneration", "PegasusConfig", _BART, _pairs),
    "phi": Family("PhiForCausalLM", "PhiConfig", _SIZES, _tokens),
    "phi3": Family("Phi3ForCausalLM", "Phi3Config", {**_SIZES, "num_key_value_heads": 2}, _tokens),
    "poolformer": Family("PoolFormerForImageClassification", "PoolFormerConfig", _STAGES, _image),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", {**_SIZES, "num_key_value_heads": 2}, _tokens),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config", _GROUPED, _tokens),
    "resnet": Family("ResNetForImageClassification", "ResNetConfig", {**_STAGES, "embedding_size": 8}, _image),
    "roberta": Family("RobertaForSequenceClassification", "RobertaConfig", _SIZES, _masked),
    "segformer": Family("SegformerForImageClassification", "SegformerConfig",
                        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]},
                        _larger_image),
    "siglip": Family("SiglipModel", "SiglipConfig", _TOWERS, _image_and_text),
    "squeezebert": Family("SqueezeBertForSequenceClassification", "SqueezeBertConfig",
                          {**_SIZES, "embedding_size": 32}, _masked),
    "stablelm": Family("StableLmForCausalLM", "StableLmConfig", {**_SIZES, "num_key_value_heads": 2}, _tokens),
    "starcoder2": Family("Starcoder2ForCausalLM", "Starcoder2Config", {**_SIZES, "num_key_value_heads": 2}, _tokens),
    "swin": Family("SwinForImageClassification", "SwinConfig",
                   {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
                    "window_size": 4}, _image),
    "swinv2": Family("Swinv2ForImageClassification", "Swinv2Config",
                     {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
                      "window_size": 4}, _image),
    "t5": Family("T5ForConditionalGeneration", "T5Config", _T5, _pairs),
    "vilt": Family("ViltForQuestionAnswering", "ViltConfig", {**_SIZES, **_VISION}, _image_and_text),
    "vit": Family("ViTForImageClassification", "ViTConfig", _VISION, _image),
    "vit-mae": Family("ViTMAEModel", "ViTMAEConfig", _VISION, _image),
    "wav2vec2": Family("Wav2Vec2ForCTC", "Wav2Vec2Config", _WAVE, _waveform),
    "whisper": Family("WhisperForConditionalGeneration", "WhisperConfig",
                      {**_BART, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 32},
                      _spectrogram),
    "xglm": Family("XGLMForCausalLM", "XGLMConfig",
                   {"vocab_size": _VOCABULARY, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48,
                    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2}, _tokens),
    "yolos": Family("YolosForObjectDetection", "YolosConfig",
                    {**_VISION, "image_size": [32, 32], "num_detection_tokens": 5}, _image),
}  # fmt: skip


def build_small(name: str, seed: int = 0, **changes: Any) -> tuple[nn.Module, Inputs]:
    """A small model of a family in eval mode, with random weights, and keyword inputs for it.

    Args:
        name: of `FAMILIES`.
        seed: of weights and inputs.
        changes: values of the configuration instead of the family's.

    Raises:
        ModelError: if there is no such family, or transformers is not installed.
    """
    if name not in FAMILIES:
        raise ModelError(f"there is no transformers:{name}; there are {', '.join(FAMILIES)}")
    import_torchvision()  # transformers imports it, and would stumble where its operators do not load
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError("transformers is not installed: pip install 'graphgrow[zoo]'") from error
    family = FAMILIES[name]
    torch.manual_seed(seed)
    config = getattr(library, family.config)(**{**family.values, **changes})
    model: nn.Module = getattr(library, family.model)(config)
    for part in model.modules():
        for parametrised in list(getattr(part, "parametrizations", {})):
            parametrize.remove_parametrizations(part, parametrised)
    return model.eval(), family.inputs(torch.Generator().manual_seed(seed))
