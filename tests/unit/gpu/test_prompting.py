"""A prompt resolved for tokenizers of several kinds: special tokens and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlijob.config import PromptConfig
from nlijob.errors import ConfigurationError
from nlijob.gpu.heads import CausalHead, ClassificationHead, Head
from nlijob.records.job import Example, PromptRecord
from nlijob.report.snippet import input_code
from tests.small_tokenizers import byte_level, characters, sentence_piece, word_pieces

TEMPLATE = "Text: {premise}\nClaim: {hypothesis}\nLabel:"
ROWS = [Example(0, "a man is running", "a person runs", 0), Example(1, "a man", "the park", 2)]
TWO = ("entailment", "not_entailment")

Make = Callable[..., Any]


def digit_splitting(**options: Any) -> Any:
    """As Llama 3 and Qwen have: the blank before a digit is a token of its own."""
    return byte_level(splits_digits=True, **options)


KINDS: tuple[Make, ...] = (byte_level, digit_splitting, sentence_piece, word_pieces, characters)
every_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


def head(
    tokenizer: Any, template: str = TEMPLATE, labels: tuple[str, ...] = (), **options: Any
) -> CausalHead:
    names = labels or ("entailment", "neutral", "contradiction")
    prompt = PromptConfig(template, **options)
    return CausalHead(tokenizer, prompt, 256, ROWS, label_names=names)


def ids(head: Head, row: Example = ROWS[0]) -> list[int]:
    return head.encode("test", [row])[0].features["input_ids"]


# ---------------------------------------------------------------- answers


@every_kind
@pytest.mark.parametrize("around", ["", "<s> $A", "<s> $A </s>"])
def test_input_and_label_token_are_the_tokens_of_the_prompt_with_its_answer(
    make: Make, around: str
) -> None:
    tokenizer = make(around=around)
    asked = head(tokenizer)
    assert asked.prompt.style == "digits"
    text = TEMPLATE.format(premise=ROWS[0].premise, hypothesis=ROWS[0].hypothesis)
    for verbalizer, label_token in zip(asked.prompt.verbalizers, asked.label_tokens, strict=True):
        bare = tokenizer(text + verbalizer, add_special_tokens=False)["input_ids"]
        before = [tokenizer.bos_token_id] if around else []
        assert [*ids(asked), label_token] == before + bare


@every_kind
@pytest.mark.parametrize("verbalizers", ["auto", ("0", "1", "2")], ids=["auto", "given"])
@pytest.mark.parametrize("end", ["", " ", "\n"], ids=["colon", "blank", "line"])
def test_the_text_with_its_answer_is_the_same_wherever_white_space_is_written(
    make: Make, verbalizers: Any, end: str
) -> None:
    asked = head(make(), TEMPLATE + end, verbalizers=verbalizers)
    first = asked.prompt.template + asked.prompt.verbalizers[0]
    usual = " " if verbalizers == "auto" and not end else ""
    assert first == TEMPLATE + end + usual + "0"


def test_a_blank_that_is_a_token_of_its_own_ends_the_prompt() -> None:
    tokenizer = digit_splitting()
    spaced, bare = head(tokenizer), head(tokenizer, TEMPLATE + " ", verbalizers=("0", "1", "2"))
    assert tokenizer.convert_ids_to_tokens(list(spaced.prompt.answer_start)) == ["Ġ"]
    assert ids(spaced) == ids(bare)
    assert spaced.label_tokens == bare.label_tokens
    assert spaced.text(ROWS[0]).endswith("Label: ")


@every_kind
@pytest.mark.parametrize(
    ("labels", "style"), [(2, "digits"), (5, "digits"), (10, "digits"), (13, "letters")]
)
def test_labels_get_digits_and_where_these_run_out_letters(
    make: Make, labels: int, style: str
) -> None:
    names = tuple(f"label {number}" for number in range(labels))
    asked = head(make(), labels=names)
    assert asked.prompt.style == style
    assert len(set(asked.label_tokens)) == labels


def test_names_serve_where_neither_digits_nor_letters_are_known() -> None:
    vocabulary = ["<unk>", "Label", ":", "entailment", "not_entailment"]
    tokenizer = words_alone(vocabulary)
    asked = head(tokenizer, "{premise} {hypothesis} Label :", TWO)
    assert asked.prompt.style == "names"
    assert asked.label_tokens == (3, 4)


def test_answers_that_the_vocabulary_lacks_are_told() -> None:
    tokenizer = words_alone(["<unk>", "Label", ":"])
    with pytest.raises(ConfigurationError) as error:
        head(tokenizer, "{premise} {hypothesis} Label :", TWO)
    assert error.value.message == (
        "prompt.verbalizers: no answers serve this tokenizer (digits: ' 0', ' 1' are not in the "
        "vocabulary; letters: ' A', ' B' are not in the vocabulary; names: ' entailment', "
        "' not_entailment' are not in the vocabulary)"
    )
    assert "give prompt.verbalizers" in error.value.hint


def test_a_fault_names_answers_that_would_serve() -> None:
    with pytest.raises(ConfigurationError) as error:
        head(byte_level(), labels=TWO, verbalizers=(" a", " a man"))
    assert error.value.message == ("prompt.verbalizers: ' a' ends where the other answers go on")
    assert "prompt.verbalizers=[' 0', ' 1'] would serve" in error.value.hint


def test_the_prompt_names_the_answers_and_their_labels() -> None:
    asked = head(byte_level(), "Say {answers}. {premise} {hypothesis}", TWO)
    assert asked.prompt.template.startswith("Say 0 for entailment, 1 for not_entailment. {prem")
    given = head(
        byte_level(), "Say {answers}. {premise} {hypothesis}", TWO, verbalizers=(" A", " B")
    )
    assert given.prompt.template.startswith("Say A for entailment, B for not_entailment. {prem")


def test_a_classification_head_names_digits_and_has_no_label_tokens() -> None:
    prompt = PromptConfig("Say {answers}. {premise} {hypothesis}")
    read = ClassificationHead(byte_level(), prompt, 256, ROWS, label_names=TWO)
    assert read.prompt.template.startswith("Say 0 for entailment, 1 for not_entailment.")
    assert read.label_tokens == ()


def test_few_shot_examples_end_with_their_answers() -> None:
    asked = head(digit_splitting())
    longer, prefix = asked.few_shot(ROWS)
    assert prefix == (
        "Text: a man is running\nClaim: a person runs\nLabel: 0\n\n"
        "Text: a man\nClaim: the park\nLabel: 2\n\n"
    )
    assert longer.text(ROWS[0]) == prefix + asked.text(ROWS[0])
    assert asked.text(ROWS[0]).startswith("Text")


# ---------------------------------------------------------------- special tokens


@every_kind
@pytest.mark.parametrize("start", ["<s>", "\n<s>", " <s> "], ids=["bare", "line", "blanks"])
def test_a_token_that_is_added_anyway_is_not_doubled_and_told(make: Make, start: str) -> None:
    asked = head(make(around="<s> $A"), start + TEMPLATE)
    assert ids(asked).count(1) == 1
    assert asked.prompt.notes == (
        "prompt.template writes <s>, which the tokenizer adds anyway; the prompt has it once.",
    )


@every_kind
def test_a_special_token_that_the_template_writes_alone_is_kept_and_told(make: Make) -> None:
    asked = head(make(), "<s>" + TEMPLATE)
    assert ids(asked)[0] == 1
    assert asked.prompt.notes == ("prompt.template writes special tokens: <s>.",)


def test_what_only_looks_like_a_special_token_is_told() -> None:
    asked = head(byte_level(), "[CLS] " + TEMPLATE)
    assert asked.prompt.notes == (
        "prompt.template writes [CLS], which is plain text to this tokenizer.",
    )


@every_kind
def test_an_ending_that_the_tokenizer_adds_is_left_out_and_told(make: Make) -> None:
    asked = head(make(around="<s> $A </s>"))
    assert 2 not in ids(asked)
    assert asked.prompt.notes == (
        "The tokenizer puts </s> behind a text; it is left out, because an answer follows the "
        "prompt.",
    )


@pytest.mark.parametrize("end", ["", "</s>"], ids=["added", "written too"])
def test_a_classification_head_keeps_the_ending_once(end: str) -> None:
    prompt = PromptConfig("{premise} {hypothesis}" + end)
    read = ClassificationHead(byte_level(around="<s> $A </s>"), prompt, 256, ROWS)
    assert ids(read).count(1) == 1
    assert ids(read).count(2) == 1
    assert len(read.prompt.notes) == len(end) // 4


@every_kind
@pytest.mark.parametrize("around", ["", "<s> $A", "<s> $A </s>"])
def test_the_reports_code_makes_the_same_tokens(make: Make, around: str) -> None:
    tokenizer = make(around=around)
    asked = head(tokenizer)
    assert ids_of_code(tokenizer, asked) == ids(asked)


def ids_of_code(tokenizer: Any, asked: Head, row: Example = ROWS[0]) -> list[int]:
    """The tokens that the code in the report makes of a row."""
    resolved = asked.prompt
    record = PromptRecord(
        resolved.template,
        *(resolved.label_tokens, (), "", (), {}, {}, 256, ""),
        answer_start=resolved.answer_start,
        tokens_before=resolved.tokens_before,
    )
    model = torch.nn.Module()
    model.device = torch.device("cpu")  # type: ignore[assignment]
    text = resolved.template.format(premise=row.premise, hypothesis=row.hypothesis)
    names = {"tokenizer": tokenizer, "model": model, "torch": torch, "prompt": text}
    exec(input_code(record).replace("\n    ", "\n"), names)
    found: list[int] = names["inputs"]["input_ids"][0].tolist()
    return found


def words_alone(vocabulary: list[str]) -> Any:
    """A tokenizer that knows these words, which white space separates."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
