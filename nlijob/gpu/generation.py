"""Free output: what a model writes after the prompt, greedily, for the shown cases only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from nlijob.gpu.model import LoadedModel

ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which is planned anew for each length, that is for each token written."""


@torch.no_grad()
def generate(
    loaded: LoadedModel, prompts: Sequence[str], max_new_tokens: int, batch_size: int
) -> list[str]:
    """The text that follows each prompt, at most `max_new_tokens` long, special tokens left out."""
    loaded.model.eval()
    texts: list[str] = []
    with sdpa_kernel(ATTENTION):
        for start in range(0, len(prompts), batch_size):
            batch = list(prompts[start : start + batch_size])
            texts += _generate_batch(loaded, batch, max_new_tokens)
    return texts


def _generate_batch(loaded: LoadedModel, prompts: list[str], max_new_tokens: int) -> list[str]:
    tokenizer: Any = loaded.tokenizer
    # Padded on the left, so that every prompt ends where the new text begins.
    inputs = tokenizer.pad(
        tokenizer(prompts), padding=True, padding_side="left", return_tensors="pt"
    )
    inputs = {name: tensor.to(loaded.device) for name, tensor in inputs.items()}
    length = inputs["input_ids"].shape[1]
    written = loaded.model.generate(
        **inputs,
        max_new_tokens=min(max_new_tokens, loaded.max_length - length),
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts: list[str] = tokenizer.batch_decode(written[:, length:], skip_special_tokens=True)
    return texts
