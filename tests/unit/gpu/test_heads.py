from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.errors import NotAvailableError
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded, base
from nlijob.gpu.heads.answers import AnswerTokens, Indistinct, answer_tokens
from nlijob.gpu.model import LoadedModel
from nlijob.records.job import Example
from tests import tolerance

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
PROMPTS = ["Premise: a man runs\nLabel:", "Premise: two dogs sleep\nLabel:"]


def tokens(tokenizer: Any, prompts: list[str], verbalizers: list[str]) -> AnswerTokens:
    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts))["input_ids"]
        return ids

    return answer_tokens(tokenize, tokenizer, prompts, verbalizers)


def test_a_label_token_is_what_follows_the_prompt_in_context(tokenizer: Any) -> None:
    found = tokens(tokenizer, PROMPTS, [" 0", " 1"])
    assert found.labels[0] == tokenizer(PROMPTS[0] + " 0")["input_ids"][-1]


def test_a_space_before_the_verbalizer_gives_another_token(tokenizer: Any) -> None:
    spaced = tokens(tokenizer, PROMPTS, [" 0", " 1"])
    assert spaced.labels != tokens(tokenizer, PROMPTS, ["0", "1"]).labels


def test_the_first_token_in_which_answers_differ_decides(tokenizer: Any) -> None:
    found = tokens(tokenizer, PROMPTS, [" a man walks", " a man sleeps"])
    both = tokenizer([PROMPTS[0] + " a man walks", PROMPTS[0] + " a man sleeps"])["input_ids"]
    bare = len(tokenizer(PROMPTS[0])["input_ids"])
    decided = bare + len(found.start)
    assert len(found.start) >= 2
    assert [ids[bare:decided] for ids in both] == [list(found.start)] * 2
    assert found.labels == tuple(ids[decided] for ids in both)


def test_every_answer_that_begins_like_another_is_named_with_the_token(tokenizer: Any) -> None:
    with pytest.raises(Indistinct) as error:
        tokens(tokenizer, PROMPTS, [" 0", " a man", " a dog", " a cat"])
    assert error.value.faults == [
        "' a dog' begins with the same token as ' a man' (' a')",
        "' a cat' begins with the same token as ' a man' (' a')",
    ]


def test_an_answer_that_another_goes_on_with_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Indistinct, match="' a' ends where the other answers go on"):
        tokens(tokenizer, PROMPTS, [" a", " a man"])


def test_a_verbalizer_that_merges_with_the_prompt_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Indistinct, match="'ing' merges") as error:
        tokens(tokenizer, ["a man walk"], ["ing", " 0"])
    assert error.value.merges


def test_rows_longer_than_the_context_are_named_and_not_truncated(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    long = dataclasses.replace(examples[0], index=77, premise="a man " * 300)
    head = CausalHead(tokenizer, demo.prompt, 128, examples)
    with pytest.raises(
        NotAvailableError, match=r"test: 1 prompt longer .* 128 tokens: row 77 \(\d+"
    ):
        head.encode("test", [examples[0], long])


def test_rows_longer_than_the_context_are_left_out_where_that_is_asked_for(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    long = dataclasses.replace(examples[0], index=77, premise="a man " * 300)
    head = CausalHead(tokenizer, demo.prompt, 128, examples)
    rows = head.encode("test", [long, *examples[:2]], drop_longer=True)
    assert [row.example for row in rows] == examples[:2]
    with pytest.raises(NotAvailableError) as error:
        head.encode("test", [long], drop_longer=True)
    assert "model.too_long='drop' would leave no row" in error.value.hint


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
    expected = [head.label_tokens[row.example.label] for row in rows]
    assert head.targets(rows, CPU).tolist() == expected


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


def test_rows_are_tokenized_in_parts_without_a_look_for_garbage(
    head: CausalHead, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = head.encode("test", examples[:5])
    calls: list[tuple[int, bool]] = []
    tokenize = head._tokenize

    def watched(part: Sequence[Example]) -> Any:
        calls.append((len(part), gc.isenabled()))
        return tokenize(part)

    monkeypatch.setattr(head, "_tokenize", watched)
    monkeypatch.setattr(base, "ROWS_AT_ONCE", 2)
    assert [*head.encode("test", examples[:5])] == [*whole]
    assert calls == [(2, False), (2, False), (1, False)]
    assert gc.isenabled()


def test_garbage_is_looked_for_again_after_a_tokenizer_has_failed(
    head: CausalHead, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_tokenizer", None)
    with pytest.raises(TypeError):
        head.encode("test", examples[:1])
    assert gc.isenabled()
