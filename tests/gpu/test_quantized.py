"""The copy of the quantised base model, as a GPU quantises it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import load_config
from nlijob.demo import MODEL_DIR
from nlijob.gpu import quantized
from nlijob.gpu.fast.layers import adapted_layers, base_weight
from nlijob.gpu.model import load
from nlijob.gpu.quantized import QuantizedCopy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_copy_is_the_model_bit_for_bit(
    tokenizer: Any, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(quantized, "WORTH_A_COPY_S", 0.0)
    job = load_config("demo", {"model.device": "cuda", "model.compute_dtype": dtype})
    models: list[Any] = []
    for _ in range(2):
        copy = QuantizedCopy(job, "a", getattr(torch, dtype), GPU, lambda part: nullcontext())
        models.append(load(job, MODEL_DIR, tokenizer, GPU, copy).model)
        assert copy.is_written == (len(models) == 1)
        copy.seal()
    bases = ([layer.get_base_layer() for layer in adapted_layers(model)] for model in models)
    for layer, copied in zip(*bases, strict=True):
        weight = base_weight(layer, getattr(torch, dtype))
        assert torch.equal(weight, base_weight(copied, getattr(torch, dtype)))
    one, other = (model.state_dict() for model in models)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(one[name].dtype == other[name].dtype for name in one)
