"""Shapes of published models, with random weights, for benchmarks without a download.

`python -m benchmarks.shapes phi-2 DIR` writes one into a folder, with the demo's tokenizer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from nlijob.demo import MODEL_DIR

PHI_2 = {
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.4,
}
"""The part of microsoft/phi-2's configuration that sets dimensions."""
LLAMA_3B = {
    "vocab_size": 51200,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""Llama 3.2 3B with phi-2's vocabulary."""
LLAMA_1B = {
    **LLAMA_3B,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "head_dim": 64,
}
"""Llama 3.2 1B with phi-2's vocabulary."""
SMOLLM2_135M = {
    **LLAMA_3B,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
"""SmolLM2-135M with phi-2's vocabulary."""
MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
"""The part of MiniLM-L6's configuration that differs from BERT-base's."""


def _llama(sizes: Mapping[str, Any]) -> Callable[[], nn.Module]:
    return lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def _bert(**sizes: int) -> Any:
    """An encoder with a classification head, and without the dropout of its configuration."""
    config = transformers.BertConfig(
        **sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


SHAPES: Mapping[str, Callable[[], Any]] = {
    "phi-2": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**PHI_2)),
    "llama-3b": _llama(LLAMA_3B),
    "llama-1b": _llama(LLAMA_1B),
    "smollm2-135m": _llama(SMOLLM2_135M),
    "minilm": lambda: _bert(**MINILM),
    "bert-base": _bert,
}


def save_random_model(
    shape: str, folder: Path, device: torch.device, tokenizer: Path = MODEL_DIR
) -> Path:
    """Write a model with random weights in bfloat16, and a copy of a tokenizer, into the folder."""
    torch.manual_seed(0)
    with device:
        model: Any = SHAPES[shape]().bfloat16()
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    _, asked, place = sys.argv
    save_random_model(
        asked, Path(place), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
