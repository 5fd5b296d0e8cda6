"""The two task heads, behind one interface: encode rows, collate a batch, give logits.

Training, scoring and evaluation are written once against `Head` and never ask which one it is.
Rows are padded on the right. A causal model reads a row's last real position only, so padding
behind it needs no attention mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nlijob.config import PromptConfig
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.prompts import prompt_text
from nlijob.records import Example, Split

SHOWN_ROWS = 5
CHECKED_PROMPTS = 64


@dataclass(frozen=True)
class Encoded:
    """One row as model input."""

    example: Example
    features: dict[str, list[int]]
    """input_ids and what else the tokenizer gives, each of the row's length."""

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.features["input_ids"])


@dataclass(frozen=True)
class Batch:
    """Rows side by side, on the model's device."""

    inputs: dict[str, Tensor]
    """Each [rows, tokens]."""
    positions: Tensor
    """[distinct]: the last real positions that occur."""
    position_of_row: Tensor
    """[rows]: which of `positions` is the row's."""
    labels: Tensor
    """[rows]"""


class Head(Protocol):
    """What training and scoring need to know of a task."""

    label_tokens: tuple[int, ...]

    def encode(self, split: Split, examples: Sequence[Example]) -> list[Encoded]:
        """Rows as model input. Raises NotAvailableError where one is longer than the context."""

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        """A batch padded on the right."""

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """[rows, classes] in float32: the whole vocabulary, or the labels."""

    def target_class(self, label: int) -> int:
        """The class of a label among `logits`."""

    def targets(self, batch: Batch) -> Tensor:
        """[rows]: the class of each row's label among `logits`."""

    def label_logits(self, logits: Tensor) -> Tensor:
        """[rows, labels] of what `logits` gave."""


class CausalHead:
    """The next token after the prompt is the answer: one verbalizer token a label."""

    def __init__(
        self, tokenizer: Any, prompt: PromptConfig, max_length: int, examples: Sequence[Example]
    ) -> None:
        """`examples`: some rows in whose prompts the label tokens are derived.

        Raises ConfigurationError where a verbalizer is not one distinct token.
        """
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._max_length = max_length
        prompts = [prompt_text(prompt, example) for example in examples[:CHECKED_PROMPTS]]
        self.label_tokens = label_tokens(tokenizer, prompts, prompt.verbalizers)

    def encode(self, split: Split, examples: Sequence[Example]) -> list[Encoded]:
        texts = [prompt_text(self._prompt, example) for example in examples]
        ids = self._tokenizer(texts)["input_ids"]
        rows = [Encoded(e, {"input_ids": i}) for e, i in zip(examples, ids, strict=True)]
        check_lengths(split, rows, self._max_length)
        return rows

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        padding = self._tokenizer.pad_token_id
        longest = max(row.length for row in rows)
        ids = [row.features["input_ids"] + [padding] * (longest - row.length) for row in rows]
        return _batch({"input_ids": torch.tensor(ids)}, rows, device)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        kept: Tensor = model(
            **batch.inputs, use_cache=False, logits_to_keep=batch.positions
        ).logits  # [rows, distinct positions, vocabulary]
        every_row = torch.arange(len(kept), device=kept.device)
        return kept[every_row, batch.position_of_row].float()

    def target_class(self, label: int) -> int:
        return self.label_tokens[label]

    def targets(self, batch: Batch) -> Tensor:
        return self._label_tokens(batch.labels.device)[batch.labels]

    def label_logits(self, logits: Tensor) -> Tensor:
        return logits[:, self._label_tokens(logits.device)]

    def _label_tokens(self, device: torch.device) -> Tensor:
        return torch.tensor(self.label_tokens, device=device)


class ClassificationHead:
    """A linear layer over the sequence, one output a label."""

    label_tokens: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, prompt: PromptConfig, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._max_length = max_length

    def encode(self, split: Split, examples: Sequence[Example]) -> list[Encoded]:
        if self._prompt.template:
            table = self._tokenizer([prompt_text(self._prompt, e) for e in examples])
        else:
            table = self._tokenizer([e.premise for e in examples], [e.hypothesis for e in examples])
        rows = [
            Encoded(example, {name: column[i] for name, column in table.items()})
            for i, example in enumerate(examples)
        ]
        check_lengths(split, rows, self._max_length)
        return rows

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        inputs = self._tokenizer.pad(
            [row.features for row in rows], padding=True, padding_side="right", return_tensors="pt"
        )
        return _batch(dict(inputs), rows, device)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        logits: Tensor = model(**batch.inputs).logits
        return logits.float()

    def target_class(self, label: int) -> int:
        return label

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels

    def label_logits(self, logits: Tensor) -> Tensor:
        return logits


def label_tokens(
    tokenizer: Any, prompts: Sequence[str], verbalizers: Sequence[str]
) -> tuple[int, ...]:
    """The token of each verbalizer, derived in context: from whole prompts plus the verbalizer.

    What token a text becomes depends on what precedes it. Raises ConfigurationError with every
    verbalizer that is not one token, the same after each prompt, and distinct.
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
            "each label needs one distinct token after the prompt; a leading blank often matters, "
            "and digits are short: prompt.verbalizers=[' 0', ' 1', ' 2']",
        )
    return tuple(tokens)


def check_lengths(split: Split, rows: Sequence[Encoded], max_length: int) -> None:
    """Raise NotAvailableError that names the rows longer than `max_length` tokens."""
    long = [row for row in rows if row.length > max_length]
    if long:
        shown = ", ".join(
            f"row {row.example.index} ({row.length:,} tokens)" for row in long[:SHOWN_ROWS]
        )
        raise NotAvailableError(
            f"{split}: {len(long):,} prompts are longer than the model's {max_length:,} tokens: "
            f"{shown}{', ...' if len(long) > SHOWN_ROWS else ''}",
            "nothing is cut silently: take these rows out, shorten prompt.template, or raise "
            "model.max_length where the model can take more",
        )


def _tail(bare: list[int], whole: list[int]) -> tuple[int, ...] | None:
    """What `whole` adds to `bare`, or None where it does not start with it."""
    return tuple(whole[len(bare) :]) if whole[: len(bare)] == bare else None


def _batch(inputs: dict[str, Tensor], rows: Sequence[Encoded], device: torch.device) -> Batch:
    last = torch.tensor([row.length - 1 for row in rows])
    positions, position_of_row = torch.unique(last, return_inverse=True)
    return Batch(
        inputs={name: tensor.to(device) for name, tensor in inputs.items()},
        positions=positions.to(device),
        position_of_row=position_of_row.to(device),
        labels=torch.tensor([row.example.label for row in rows], device=device),
    )
