"""The base model: its configuration, tokenizer and weights, with an adapter on top."""

from __future__ import annotations

from nlijob.gpu.model.configuration import (
    MetaModel,
    compute_dtype,
    max_length,
    meta_model,
    read_model_config,
)
from nlijob.gpu.model.initial import FirstWeights, initial_weights
from nlijob.gpu.model.load import (
    LoadedModel,
    add_adapter,
    load,
    quiet_libraries,
    replace_adapter,
)
from nlijob.gpu.model.quantize import GIB, held_weights, quantization_config, weight_bytes
from nlijob.gpu.model.targets import is_target
from nlijob.gpu.model.tokenizer import read_tokenizer, vocabulary_size

__all__ = [
    "GIB",
    "FirstWeights",
    "LoadedModel",
    "MetaModel",
    "add_adapter",
    "compute_dtype",
    "held_weights",
    "initial_weights",
    "is_target",
    "load",
    "max_length",
    "meta_model",
    "quantization_config",
    "quiet_libraries",
    "read_model_config",
    "read_tokenizer",
    "replace_adapter",
    "vocabulary_size",
    "weight_bytes",
]
