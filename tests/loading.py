"""Loads a model once for each configuration, and gives copies: a sixth of the time of a load.

The model without weights is built once for each configuration too; nothing changes it.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlijob.config import JobConfig
from nlijob.gpu.model import LoadedModel, MetaModel, load, meta_model
from nlijob.gpu.quantized import QuantizedCopy


class Loader:
    """Stands in for `nlijob.gpu.model.load`, the state of torch's generator included.

    `layers`: keep only the first ones, for tests in which it matters what is done and not what the
    model knows.
    """

    def __init__(self, layers: int | None = None) -> None:
        self._layers = layers
        self._loaded: dict[str, tuple[LoadedModel, Tensor]] = {}

    def __call__(
        self,
        config: JobConfig,
        model_dir: Path,
        tokenizer: Any,
        device: torch.device,
        copied: QuantizedCopy | None = None,
        meta: MetaModel | None = None,
        dtype: torch.dtype | None = None,
    ) -> LoadedModel:
        made_from = (config.model, config.lora, config.data, config.train.seed)
        key = repr((*made_from, model_dir, device, dtype))
        if key not in self._loaded:
            loaded = load(config, model_dir, tokenizer, device, copied, meta, dtype)
            if self._layers is not None:
                del loaded.model.get_base_model().model.layers[self._layers :]
            self._loaded[key] = loaded, torch.get_rng_state()
        kept, state = self._loaded[key]
        torch.set_rng_state(state)
        return dataclasses.replace(kept, model=copy.deepcopy(kept.model), tokenizer=tokenizer)


class MetaBuilder:
    """Stands in for `nlijob.gpu.model.meta_model`."""

    def __init__(self) -> None:
        self._built: dict[str, MetaModel] = {}

    def __call__(self, config: JobConfig, model_config: Any) -> MetaModel:
        key = repr((config.model, config.lora, model_config.to_dict()))
        if key not in self._built:
            self._built[key] = meta_model(config, model_config)
        return self._built[key]
