"""The classification head: a linear layer on the transformer, with one output per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.heads.base import Batch, Head, new_batch
from nlijob.gpu.heads.rows import Encoded
from nlijob.records.job import Example


class ClassificationHead(Head):
    """A linear layer over the sequence, with one output per label."""

    auto_class = transformers.AutoModelForSequenceClassification
    peft_task_type = "SEQ_CLS"
    trains_head = True
    covers_vocabulary = False

    @classmethod
    def model_options(cls, label_names: Sequence[str]) -> dict[str, Any]:
        return {
            "num_labels": len(label_names),
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: i for i, name in enumerate(label_names)},
            "problem_type": "single_label_classification",
        }

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        inputs = self._tokenizer.pad(
            [row.features for row in rows], padding=True, padding_side="right", return_tensors="pt"
        )
        return new_batch(inputs, rows, device)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        logits: Tensor = model(**batch.inputs).logits
        return logits.float()

    def packed_logits(self, base: Any, inputs: Mapping[str, Any], last: Tensor) -> Tensor:
        hidden = base.base_model(**inputs).last_hidden_state
        logits: Tensor = _linear(base)(hidden[0, last])
        return logits

    def encoder_logits(self, base: Any, inputs: Mapping[str, Any]) -> Tensor:
        logits: Tensor = base(**inputs).logits
        return logits

    def target_class(self, label: int) -> int:
        return label

    def label_logits(self, logits: Tensor) -> Tensor:
        return logits

    def _tokenize(self, examples: Sequence[Example]) -> Mapping[str, list[list[int]]]:
        if self.prompt.template:
            return super()._tokenize(examples)
        pairs: Mapping[str, list[list[int]]] = self._tokenizer(
            [e.premise for e in examples], [e.hypothesis for e in examples]
        )
        return pairs


def _linear(base: Any) -> nn.Module:
    """Return the only module beside the model's transformer. Raises Unsupported for several."""
    prefix = base.base_model_prefix
    modules: list[nn.Module] = [child for name, child in base.named_children() if name != prefix]
    if len(modules) != 1:
        raise Unsupported("the model has more than a linear head beside its transformer")
    return modules[0]
