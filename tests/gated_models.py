"""Tiny models whose layers `nlijob.gpu.fast.stacks.gated` computes, with adapters that matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from nlijob.config import JobConfig
from nlijob.gpu.model import LoadedModel, add_adapter

SIZES: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True, "attention_bias": True},
    "Mistral": {"sliding_window": 200, "head_dim": 32, "num_key_value_heads": 1},
    "Qwen2": {},
    "Qwen3": {"head_dim": 32, "attention_bias": True},
    "SmolLM3": {"no_rope_layers": [1, 1, 1], "num_key_value_heads": 4},
    "Phi3": {"head_dim": 32, "partial_rotary_factor": 0.5},
    "Olmo2": {"attention_bias": True},
    "Olmo3": {"sliding_window": 200},
    "Gemma": {"head_dim": 32, "num_key_value_heads": 1},
    "Gemma2": {"head_dim": 16, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0},
    "Gemma3Text": {
        "head_dim": 32,
        "sliding_window": 200,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}
"""Family -> what its model has besides `SIZES`."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
PACKED_ALL_LINEAR = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


def new_gated_model(
    job: JobConfig,
    tokenizer: Any,
    family: str,
    targets: Sequence[str],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    **options: Any,
) -> LoadedModel:
    """A model of a family, the same every time; not quantised. "Gemma3" has vision as well."""
    torch.manual_seed(0)
    made: Any = transformers.AutoModelForCausalLM.from_config(_config(family, options))
    names = [name for name, _ in made.named_modules() if not name.startswith("model.vision")]
    adapted = tuple(name for name in names if name.rpartition(".")[2] in targets)
    lora = dataclasses.replace(job.lora, target_modules=adapted, dropout=dropout)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "bias" in name:
                parameter.normal_(0, 0.5)
            elif parameter.dim() > 1:
                parameter.normal_(0, 0.1)
    model = add_adapter(dataclasses.replace(job, lora=lora), made, (), adapted)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
            elif "lora_A" not in name:
                parameter.data = parameter.data.to(dtype)
    return LoadedModel(model.to(device), tokenizer, device, dtype, 2048)


def _config(family: str, options: dict[str, Any]) -> Any:
    if family != "Gemma3":
        kind = getattr(transformers, f"{family}Config")
        return kind(**{**SIZES, **FAMILIES[family], **options})
    vision = {**SIZES, "image_size": 28, "patch_size": 14}
    return transformers.Gemma3Config(
        text_config=_config("Gemma3Text", options).to_dict(),
        vision_config=transformers.SiglipVisionConfig(**vision).to_dict(),
        mm_tokens_per_image=4,
        tie_word_embeddings=True,
    )
