"""Free output: the text that a model generates greedily after the prompts of the shown cases."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from nlijob.gpu.model import LoadedModel
from nlijob.gpu.out_of_memory import in_halves

ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Every backend except cuDNN's, which would make a new plan for each new token."""


@torch.no_grad()
def generate(
    loaded: LoadedModel, prompts: Sequence[str], max_new_tokens: int, batch_size: int
) -> list[str]:
    """Return the text that follows each prompt, without special tokens.

    Each text has at most `max_new_tokens` tokens. Up to `batch_size` prompts are continued at once,
    or as many as fit into memory.
    """
    loaded.model.eval()
    batches = [prompts[i : i + batch_size] for i in range(0, len(prompts), batch_size)]
    write = functools.partial(_generate_batch, loaded, max_new_tokens)
    with sdpa_kernel(ATTENTION):
        parts = [texts for batch in batches for texts in in_halves(write, batch)]
    return [text for texts in parts for text in texts]


def _generate_batch(loaded: LoadedModel, max_new_tokens: int, prompts: Sequence[str]) -> list[str]:
    tokenizer: Any = loaded.tokenizer
    # Padding on the left makes every prompt end where the new text begins.
    inputs = tokenizer.pad(
        tokenizer(list(prompts)), padding=True, padding_side="left", return_tensors="pt"
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
