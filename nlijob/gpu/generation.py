"""Free output: the text that a model generates greedily after the prompts of the shown cases."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from nlijob.gpu.influence import influenced
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.model.attention import WITHOUT_PLANS
from nlijob.gpu.out_of_memory import in_halves


@torch.no_grad()
def generate(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    may_halve: bool = True,
) -> list[str]:
    """Return the text that follows each prompt, without special tokens.

    `prompts` are token ids. Each text has at most `max_new_tokens` tokens. Up to `batch_size`
    prompts are continued at once, or as many as fit into memory. `may_halve`: False where other
    processes must make the same passes; it then ends if memory runs out.
    """
    loaded.model.eval()
    if not _pads_safely(loaded, prompts):
        batch_size = 1
    batches = [prompts[i : i + batch_size] for i in range(0, len(prompts), batch_size)]
    write = functools.partial(_generate_batch, loaded, max_new_tokens)
    with sdpa_kernel(WITHOUT_PLANS):
        if may_halve:
            parts = [texts for batch in batches for texts in in_halves(write, batch)]
        else:
            parts = [write(batch) for batch in batches]
    return [text for texts in parts for text in texts]


def _padded(loaded: LoadedModel, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The prompts as model inputs. Padding on the left makes each end where new text begins."""
    columns = {"input_ids": [list(prompt) for prompt in prompts]}
    inputs = loaded.tokenizer.pad(
        columns,
        padding=True,
        padding_side="left",
        return_attention_mask=True,
        return_tensors="pt",
    )
    return {name: tensor.to(loaded.device) for name, tensor in inputs.items()}


def _pads_safely(loaded: LoadedModel, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether padding before a prompt has no part in what follows the prompt.

    It has one in layers that pass state between tokens other than by attention.
    """
    if len(prompts) < 2:
        return True
    ordered = sorted(prompts, key=len)
    inputs = _padded(loaded, [ordered[0], ordered[-1]])
    own = torch.eye(2, dtype=torch.bool)[:, :, None] & inputs["attention_mask"].bool().cpu()
    model = loaded.model
    return not influenced(
        model.get_input_embeddings(),
        lambda: model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1],
        own,
    )


def _generate_batch(
    loaded: LoadedModel, max_new_tokens: int, prompts: Sequence[Sequence[int]]
) -> list[str]:
    tokenizer: Any = loaded.tokenizer
    inputs = _padded(loaded, prompts)
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
