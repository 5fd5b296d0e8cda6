"""The interface of a task head: encode rows, collate a batch, compute logits.

Training, scoring and loading use `Head` alone; heads differ in its subclasses only. Rows are padded
on the right. A causal model reads a row's last real position only, so padding after it needs no
attention mask.
"""

from __future__ import annotations

import contextlib
import copy
import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig, PromptConfig
from nlijob.errors import NotAvailableError
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.heads.prompting import Resolver
from nlijob.gpu.heads.rows import Encoded, EncodedRows, as_table
from nlijob.prompts import prompt_text
from nlijob.records.job import Example, Split

SHOWN_ROWS = 5
ROWS_AT_ONCE = 8192
"""Rows in one call of the tokenizer. What it keeps of each row until the call ends (offsets, the
tokens' texts) takes five times as much memory as the row as model input."""


@dataclass(frozen=True)
class Batch:
    """Rows side by side, on the model's device."""

    inputs: dict[str, Tensor]
    """The model's arguments, each [rows, tokens]."""
    positions: Tensor
    """[distinct]: the different positions of rows' last real tokens."""
    position_of_row: Tensor
    """[rows]: index into `positions` of each row's last real token."""


class Head(ABC):
    """How rows become model input, and how the answer is read from the model."""

    auto_class: ClassVar[Any]
    """The transformers class that loads a model with this head."""
    peft_task_type: ClassVar[str]
    """PEFT's name for the task, stored in the adapter's configuration."""
    trains_head: ClassVar[bool]
    """Whether the modules beside the transformer are trained in full and saved with the adapter.
    They are initialised from the seed if the checkpoint lacks them. Otherwise they are pretrained,
    and frozen unless LoRA targets them."""
    reads_forward: ClassVar[bool] = False
    """Whether each token is read after those before it only, as a language model reads."""
    covers_vocabulary: ClassVar[bool]
    """Whether the classes among `logits` are the whole vocabulary rather than the labels."""
    reads_answers: ClassVar[bool] = False
    """Whether labels are told apart by the token that follows the prompt."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: PromptConfig,
        max_length: int,
        examples: Sequence[Example] = (),
        vocabulary: int | None = None,
        label_names: Sequence[str] = DataConfig.label_names,
    ) -> None:
        """`max_length`: longest input in tokens. `examples`: rows to check the prompt on.
        `vocabulary`: number of tokens that the model has embeddings for, if that is known.
        `label_names`: the labels, in their order.

        Raises ConfigurationError if the prompt does not suit the tokenizer, and NotAvailableError
        if the tokenizer does not suit the model.
        """
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._vocabulary = vocabulary
        self._resolver = Resolver(tokenizer, prompt, label_names, examples, self.reads_answers)
        self.prompt = self._resolver.prompt()
        """How rows become text, and the tokens of the answers."""
        self._check_known("a label", self.label_tokens)

    @property
    def label_tokens(self) -> tuple[int, ...]:
        """Token id of each label; empty where labels are not tokens."""
        return self.prompt.label_tokens

    def few_shot(self, examples: Sequence[Example]) -> tuple[Self, str]:
        """Return this head with answered rows before its prompt, and the text before the prompt."""
        head = copy.copy(self)
        head.prompt, prefix = self._resolver.few_shot(self.prompt, examples)
        return head, prefix

    @classmethod
    def model_options(cls, label_names: Sequence[str]) -> dict[str, Any]:
        """Return what the head changes in the model's configuration."""
        return {}

    def encode(
        self, split: Split, examples: Sequence[Example], drop_longer: bool = False
    ) -> EncodedRows:
        """Tokenize rows. `drop_longer` leaves out those that are longer than the context.

        Raises NotAvailableError if a row is longer than the context, or if the tokenizer makes
        nothing of it that the model knows.
        """
        starts = range(0, len(examples), ROWS_AT_ONCE)
        with _without_collection():
            rows = EncodedRows.of(
                examples, (self._tokenize(examples[s : s + ROWS_AT_ONCE]) for s in starts)
            )
        _check_not_empty(split, rows)
        fitting = rows.up_to(self._max_length)
        if len(fitting) < len(rows) and not (drop_longer and fitting):
            raise _too_long(split, rows, self._max_length)
        self._check_tokens(split, fitting)
        return fitting

    def with_special_tokens(self, rows: Sequence[Encoded]) -> list[Encoded]:
        """Return the rows whose own texts hold special tokens, which the model reads as such.

        All rows have the template's; these have more.
        """
        special = set(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}
        counts = as_table(rows).counts_of(special)
        of_template = counts.min() if len(counts) else 0
        return [rows[number] for number in (counts > of_template).nonzero()[0].tolist()]

    def text(self, example: Example) -> str:
        """Return the row as text, up to where an answer is told from the others."""
        start: str = self._tokenizer.decode(list(self.prompt.answer_start))
        return prompt_text(self.prompt, example) + start

    @abstractmethod
    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        """Return the rows as one batch, padded on the right."""

    @abstractmethod
    def logits(self, model: Any, batch: Batch) -> Tensor:
        """Return [rows, classes] in float32; the classes are the vocabulary, or the labels."""

    def packed_logits(self, base: Any, inputs: Mapping[str, Any], last: Tensor) -> Tensor:
        """Return [rows, classes] of one pack of rows.

        `base` is the model without PEFT's wrapper, `inputs` its arguments for the pack. `last`
        [rows] are the positions in its output that hold the rows' last tokens. Raises Unsupported
        for a head or model that cannot read packs.
        """
        raise Unsupported(f"{type(self).__name__} cannot read packed rows")

    def encoder_logits(self, base: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Return [rows, classes] of one pack of rows of a model that reads in both directions.

        `base` and `inputs` are as in `packed_logits`, but the layers' output has each row on its
        own (`nlijob.gpu.fast.encoder`). Raises Unsupported for a head that cannot read such packs.
        """
        raise Unsupported("the model's attention is not causal")

    @abstractmethod
    def target_class(self, label: int) -> int:
        """Return the class of a label among `logits`."""

    def targets(self, rows: Sequence[Encoded], device: torch.device) -> Tensor:
        """Return [rows]: the class of each row's label among `logits`."""
        return torch.tensor([self.target_class(row.example.label) for row in rows], device=device)

    @abstractmethod
    def label_logits(self, logits: Tensor) -> Tensor:
        """Return [rows, labels]: the labels' columns of `logits`, in label order."""

    def _check_tokens(self, split: Split, rows: EncodedRows) -> None:
        """Raise NotAvailableError unless the model knows the tokens, and they tell something."""
        if self._vocabulary is not None:
            unknown = (rows.ids >= self._vocabulary).nonzero()[0]
            for number in rows.rows_at(unknown[:1]).tolist():
                row = rows[number]
                self._check_known(f"{split} row {row.example.index}", row.features["input_ids"])
        special = rows.counts_of(self._tokenizer.all_special_ids)
        if rows and (special == rows.lengths).all():
            raise NotAvailableError(
                f"the tokenizer knows no word of the {split} rows: it makes "
                f"{rows[0].features['input_ids'][:SHOWN_ROWS]} of the first",
                "the tokenizer's files are incomplete, or belong to another language",
            )

    def _check_known(self, what: str, tokens: Sequence[int]) -> None:
        """Raise NotAvailableError if the model has no embedding for a token."""
        largest = max(tokens, default=0)
        if self._vocabulary is not None and largest >= self._vocabulary:
            text = self._tokenizer.convert_ids_to_tokens(largest)
            raise NotAvailableError(
                f"{what} has the token {text!r} (number {largest:,}), but the model has "
                f"embeddings for {self._vocabulary:,} tokens only",
                "tokenizer and model do not belong together, or tokens were added to the tokenizer "
                "alone",
            )

    def _tokenize(self, examples: Sequence[Example]) -> Mapping[str, list[list[int]]]:
        """Return the tokenizer's columns for the rows in the prompt template."""
        columns: Mapping[str, list[list[int]]] = self._tokenizer(
            [prompt_text(self.prompt, example) for example in examples],
            add_special_tokens=not self.prompt.is_chat,
        )
        return columns


def new_batch(inputs: Mapping[str, Tensor], rows: Sequence[Encoded], device: torch.device) -> Batch:
    """Return a batch of padded inputs [rows, tokens] on the device."""
    last = torch.tensor([row.length - 1 for row in rows])
    positions, position_of_row = torch.unique(last, return_inverse=True)
    return Batch(
        inputs={name: tensor.to(device) for name, tensor in inputs.items()},
        positions=positions.to(device),
        position_of_row=position_of_row.to(device),
    )


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """A context without garbage collection, for work whose many new objects all stay.

    Looking through them again and again takes longer than making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_not_empty(split: Split, rows: EncodedRows) -> None:
    """Raise NotAvailableError if a row has no tokens."""
    empty = (rows.lengths == 0).nonzero()[0]
    if len(empty):
        raise NotAvailableError(
            f"{split}: the tokenizer makes no tokens of row {rows.examples[empty[0]].index} "
            f"({plural(len(empty), 'such row')})",
            "the tokenizer's files are incomplete, or prompt.template is nearly empty",
        )


def _too_long(split: Split, rows: EncodedRows, max_length: int) -> NotAvailableError:
    """The error that names the rows longer than `max_length` tokens."""
    too_long = (rows.lengths > max_length).nonzero()[0]
    shown = ", ".join(
        f"row {rows.examples[number].index} ({rows.lengths[number]:,} tokens)"
        for number in too_long[:SHOWN_ROWS]
    )
    leave_out = (
        "model.too_long='drop' would leave no row"
        if len(too_long) == len(rows)
        else "leave these rows out with model.too_long='drop'"
    )
    return NotAvailableError(
        f"{split}: {plural(len(too_long), 'prompt')} longer than the model's {max_length:,} "
        f"tokens: {shown}{', ...' if len(too_long) > SHOWN_ROWS else ''}",
        f"no row is truncated: {leave_out}, shorten prompt.template, or raise "
        "model.max_length if the model accepts longer input",
    )
