"""The causal head: a language model answers with one token after the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from nlijob.gpu.heads.base import Batch, Head, new_batch
from nlijob.gpu.heads.prompting import open_ended
from nlijob.gpu.heads.rows import Encoded
from nlijob.prompts import prompt_text
from nlijob.records.job import Example


class CausalHead(Head):
    """The next token after the prompt tells the answer, with one token per label."""

    auto_class = transformers.AutoModelForCausalLM
    peft_task_type = "CAUSAL_LM"
    trains_head = False
    reads_forward = True
    covers_vocabulary = True
    reads_answers = True

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
        texts = [prompt_text(self.prompt, example) for example in examples]
        rows, start = open_ended(self._tokenizer, self.prompt, texts), [*self.prompt.answer_start]
        return {"input_ids": [row + start for row in rows] if start else rows}
