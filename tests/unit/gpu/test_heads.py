from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded, label_tokens
from nlijob.gpu.model import LoadedModel
from nlijob.records.job import Example
from tests import tolerance

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
PROMPTS = ["Premise: a man runs\nLabel:", "Premise: two dogs sleep\nLabel:"]


def test_a_label_token_is_what_follows_the_prompt_in_context(tokenizer: Any) -> None:
    (token,) = label_tokens(tokenizer, PROMPTS, [" 0"])
    assert tokenizer(PROMPTS[0] + " 0")["input_ids"][-1] == token


def test_a_space_before_the_verbalizer_gives_another_token(tokenizer: Any) -> None:
    assert label_tokens(tokenizer, PROMPTS, [" 0"]) != label_tokens(tokenizer, PROMPTS, ["0"])


def test_every_verbalizer_that_is_not_one_token_is_named_with_its_pieces(tokenizer: Any) -> None:
    with pytest.raises(ConfigurationError) as error:
        label_tokens(tokenizer, PROMPTS, [" 0", " qzxv", " zzqj"])
    assert "' qzxv' is" in error.value.message
    assert "' zzqj' is" in error.value.message
    assert "' 0'" not in error.value.message


def test_two_verbalizers_with_one_token_are_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigurationError, match="same token"):
        label_tokens(tokenizer, PROMPTS, [" 0", " 0"])


def test_a_verbalizer_that_merges_with_the_prompt_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigurationError, match="merges"):
        label_tokens(tokenizer, ["a man walk"], ["ing"])


def test_rows_longer_than_the_context_are_named_and_not_truncated(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    long = dataclasses.replace(examples[0], index=77, premise="a man " * 300)
    head = CausalHead(tokenizer, demo.prompt, 128, examples)
    with pytest.raises(
        NotAvailableError, match=r"test: 1 prompt longer .* 128 tokens: row 77 \(\d+"
    ):
        head.encode("test", [examples[0], long])


def test_logits_at_the_label_position_are_those_of_the_unpadded_row(
    head: CausalHead, rows: list[Encoded], new_model: Callable[..., LoadedModel]
) -> None:
    model = new_model().model.eval()
    with torch.no_grad():
        batch = head.logits(model, head.collate(rows[:6], CPU))
        for row, logits in zip(rows[:6], batch, strict=True):
            alone = model(input_ids=torch.tensor([row.features["input_ids"]])).logits[0, -1]
            bound = tolerance.rounding(torch.float32, tolerance.DEMO_OPERATIONS)
            assert tolerance.distance(logits, alone) < bound


def test_targets_are_the_label_tokens(head: CausalHead, rows: list[Encoded]) -> None:
    tokens = [head.label_tokens[row.example.label] for row in rows]
    assert head.targets(rows, CPU).tolist() == tokens


def test_label_logits_are_in_the_order_of_the_labels(head: CausalHead) -> None:
    logits = torch.zeros(1, 4096)
    logits[0, head.label_tokens[2]] = 1
    assert head.label_logits(logits).tolist() == [[0, 0, 1]]


def test_without_a_template_classification_reads_the_tokenizers_pair(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    prompt = dataclasses.replace(demo.prompt, template="", verbalizers=())
    (row,) = ClassificationHead(tokenizer, prompt, 128).encode("test", examples[:1])
    pair = tokenizer(examples[0].premise, examples[0].hypothesis)
    assert row.features["input_ids"] == pair["input_ids"]
