"""The causal head: a language model answers with one token after the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from nlijob.errors import ConfigurationError
from nlijob.gpu.heads.base import Batch, Encoded, Head, new_batch
from nlijob.prompts import prompt_text
from nlijob.records.job import Example

CHECKED_PROMPTS = 64


class CausalHead(Head):
    """The next token after the prompt is the answer, with one verbalizer token per label."""

    auto_class = transformers.AutoModelForCausalLM
    peft_task_type = "CAUSAL_LM"
    trains_head = False
    reads_forward = True
    covers_vocabulary = True

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        padding = self._tokenizer.pad_token_id
        longest = max(row.length for row in rows)
        ids = [row.features["input_ids"] + [padding] * (longest - row.length) for row in rows]
        return new_batch({"input_ids": torch.tensor(ids)}, rows, device)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        kept: Tensor = model(
            **batch.inputs, use_cache=False, logits_to_keep=batch.positions
        ).logits  # [rows, distinct positions, vocabulary]
        every_row = torch.arange(len(kept), device=kept.device)
        return kept[every_row, batch.position_of_row].float()

    def packed_logits(self, base: Any, inputs: Mapping[str, Any], last: Tensor) -> Tensor:
        logits: Tensor = base(**inputs, logits_to_keep=last).logits[0]
        return logits

    def target_class(self, label: int) -> int:
        return self.label_tokens[label]

    def label_logits(self, logits: Tensor) -> Tensor:
        return logits[:, torch.tensor(self.label_tokens, device=logits.device)]

    def _tokenize(self, examples: Sequence[Example]) -> Mapping[str, list[list[int]]]:
        return {"input_ids": super()._tokenize(examples)["input_ids"]}

    def _find_label_tokens(self, examples: Sequence[Example]) -> tuple[int, ...]:
        """Return the label tokens in the prompts of some rows; raises like `label_tokens`."""
        prompts = [prompt_text(self._prompt, example) for example in examples[:CHECKED_PROMPTS]]
        return label_tokens(self._tokenizer, prompts, self._prompt.verbalizers)


def label_tokens(
    tokenizer: Any, prompts: Sequence[str], verbalizers: Sequence[str]
) -> tuple[int, ...]:
    """Return the token of each verbalizer, derived in context: from prompt plus verbalizer.

    The tokens of a text depend on what precedes it. Raises ConfigurationError that names every
    verbalizer that is not one distinct token, the same after each prompt.
    """
    bare = tokenizer(list(prompts))["input_ids"]
    tokens: list[int] = []
    faults: list[str] = []
    for text in verbalizers:
        whole = tokenizer([prompt + text for prompt in prompts])["input_ids"]
        tails = {_tail(b, w) for b, w in zip(bare, whole, strict=True)}
        tail = next(iter(tails))
        if len(tails) > 1 or tail is None:
            faults.append(f"{text!r} merges with the prompt before it")
        elif len(tail) != 1:
            pieces = " ".join(repr(tokenizer.decode([token])) for token in tail)
            faults.append(f"{text!r} is {len(tail)} tokens ({pieces})")
        elif tail[0] in tokens:
            faults.append(f"{text!r} is the same token as another label's")
        else:
            tokens.append(tail[0])
    if faults:
        raise ConfigurationError.from_faults(
            [f"prompt.verbalizers: {fault}" for fault in faults],
            "each label needs one distinct token after the prompt; a leading space often matters, "
            "and digits are short: prompt.verbalizers=[' 0', ' 1', ' 2']",
        )
    return tuple(tokens)


def _tail(bare: list[int], whole: list[int]) -> tuple[int, ...] | None:
    """Return what `whole` adds to `bare`, or None if it does not start with `bare`."""
    return tuple(whole[len(bare) :]) if whole[: len(bare)] == bare else None
