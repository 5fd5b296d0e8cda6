"""Merges an adapter into its base model: a plain model, as transformers itself loads it.

The merged weights are W + B A alpha / r, with W the values that the 4-bit weights stand for,
because the adapter was trained on top of these. On the original weights it would correct an error
of quantisation that is not there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nlijob.disk import disk_faults
from nlijob.errors import NotAvailableError
from nlijob.gpu.checkpoints import size_bytes
from nlijob.gpu.fast.layers import ADAPTER, dequantized
from nlijob.gpu.model.configuration import RESIDUAL_DROPOUT_KEYS

GENERATION = "generation_config.json"
CODE_OF_MODELS = "transformers_modules."
"""The package in which transformers puts code that comes with models."""


def stored_dtype(compute_dtype: torch.dtype) -> torch.dtype:
    """The data type of a merged model's weights, for one that computed in `compute_dtype`.

    Not float16: the attention of some models overflows in it unless it is computed otherwise.
    """
    return torch.bfloat16 if compute_dtype is torch.bfloat16 else torch.float32


@torch.no_grad()
def save_merged(model: Any, model_dir: Path, dtype: torch.dtype, target: Path) -> None:
    """Write a model with its adapter merged into it, without the tokenizer.

    `model`: PEFT's model with its adapter loaded. `model_dir`: folder of the original model, whose
    settings the merged one keeps. Raises NotAvailableError for a model with code of its own.
    """
    base = model.get_base_model()
    if type(base).__module__.startswith(CODE_OF_MODELS):
        raise NotAvailableError(
            f"{type(base).__name__} is computed by code that came with the model, so plain "
            "transformers would not load a merged one",
            "export the adapter alone with --adapter",
        )
    with torch.device("meta"):
        plain = type(base)(_config(base, model_dir, dtype))
    weights = {name: weight.to(dtype).cpu() for name, weight in merged_weights(model)}
    if _unties(base, weights):
        plain.config.tie_word_embeddings = False
    _fit(plain, base, weights)
    plain.load_state_dict(weights, strict=False, assign=True)
    plain.tie_weights()
    lacking = [name for name, weight in plain.named_parameters() if weight.is_meta]
    if lacking:
        raise AssertionError(f"merging gave no value to {', '.join(lacking[:5])}")
    with disk_faults(target, size_bytes(weights)):
        plain.save_pretrained(target)
    if (model_dir / GENERATION).is_file():  # as it is: the library refuses to save some
        shutil.copyfile(model_dir / GENERATION, target / GENERATION)
    for file in target.glob("*.safetensors"):  # which only their owner could read
        shutil.copymode(target / "config.json", file)


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each weight and stored buffer, with the adapter merged, one at a time.

    Names are those of the model without adapter. The adapter is added in float32.
    """
    done = ""
    for name, module in model.get_base_model().named_modules():
        if done and name.startswith(f"{done}."):
            continue
        if isinstance(module, LoraLayer):
            done = name
            for key, value in _own_values(module.get_base_layer()):
                is_merged = key == "weight"
                yield f"{name}.{key}", value.float() + _delta(module) if is_merged else value
        elif isinstance(module, ModulesToSaveWrapper):
            done = name
            for key, value in module.modules_to_save[ADAPTER].state_dict().items():
                yield f"{name}.{key}", value
        else:
            for key, value in _own_values(module):
                yield f"{name}.{key}" if name else key, value


def _delta(layer: Any) -> Tensor:
    delta: Tensor = layer.get_delta_weight(ADAPTER)
    return delta.float()


def _own_values(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights and stored buffers of a module itself, 4-bit weights dequantised."""
    for key, value in module.named_parameters(recurse=False):
        yield key, dequantized(value.data, getattr(value, "quant_state", None))
    for key, buffer in module.named_buffers(recurse=False):
        if key not in module._non_persistent_buffers_set:
            yield key, buffer


def _config(base: Any, model_dir: Path, dtype: torch.dtype) -> Any:
    """The configuration of the merged model: of the task, but without what the job changed."""
    config = type(base.config).from_dict(base.config.to_dict())
    original = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    for key in RESIDUAL_DROPOUT_KEYS:
        if key in original and hasattr(config, key):
            setattr(config, key, original[key])
    config.use_cache = original.get("use_cache", True)
    config.dtype = dtype
    return config


def _unties(base: Any, weights: dict[str, Tensor]) -> bool:
    """Whether the adapter made the output embedding differ from the input embedding it was."""
    names = {id(module): name for name, module in base.named_modules()}
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    values = [weights.get(f"{names.get(id(module), '')}.weight") for module in ends]
    first, last = values
    if first is None or last is None or first.shape != last.shape:
        return False
    return not torch.equal(first, last)


def _fit(plain: nn.Module, base: Any, weights: dict[str, Tensor]) -> None:
    """Transpose the weights of layers that hold them [in, out] and became linear ones in 4 bits."""
    for name, module in plain.named_modules():
        if not isinstance(module, Conv1D):
            continue
        own = base.get_submodule(name)
        if isinstance(own, LoraLayer):
            own = own.get_base_layer()
        if not isinstance(own, Conv1D):
            weights[f"{name}.weight"] = weights[f"{name}.weight"].T.contiguous()
