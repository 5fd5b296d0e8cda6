"""A prompt in the chat templates that models come with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from nlijob.config import PromptConfig
from nlijob.errors import ConfigurationError
from nlijob.gpu.heads import CausalHead, ClassificationHead
from nlijob.records.job import Example
from tests.small_tokenizers import byte_level, sentence_piece
from tests.unit.gpu.test_prompting import ids_of_code

TEMPLATE = "\nSay {answers}.\nText: {premise}\nClaim: {hypothesis}\nLabel:\n"
MESSAGE = (
    "Say 0 for entailment, 1 for neutral, 2 for contradiction.\n"
    "Text: a {man} runs\nClaim: a person runs\nLabel:"
)
ROW = Example(0, "a {man} runs", "a person runs", 1)

TURNS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + TURNS
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + TURNS
)
THINKING = TURNS.replace(
    "<|assistant|>\n{% endif %}",
    "<|assistant|>\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
THINKS_IF_TOLD = TURNS.replace(
    "<|assistant|>\n{% endif %}", "<|assistant|>\n{% if thinking %}<think>{% endif %}{% endif %}"
)
DATED = "Today is {{ strftime_now('%d %B %Y') }}.\n" + TURNS
INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} "
    "[/INST]{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% for p in m['content'] %}{{ p['text'] }}"
    "{% endfor %}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BRACES = '{"a": 1}{{ "{x}" }}' + TURNS
FAILING = "{{ raise_exception('only tools may be used') }}"
FORGETFUL = "<|user|>\n<|assistant|>\n"


def head(tokenizer: Any, template: str = TEMPLATE, **options: Any) -> CausalHead:
    return CausalHead(tokenizer, PromptConfig(template, **options), 256, [ROW])


@pytest.mark.parametrize(
    "template",
    [TURNS, WITH_BOS, NO_SYSTEM, THINKING, THINKS_IF_TOLD, INSTRUCTIONS, BRACES],
    ids=["turns", "bos", "no system", "thinks", "thinks if told", "instructions", "braces"],
)
@pytest.mark.parametrize("make", [byte_level, sentence_piece], ids=["bytes", "pieces"])
def test_the_input_is_what_the_chat_template_makes_of_the_message(make: Any, template: str) -> None:
    tokenizer = make(around="<s> $A </s>", chat_template=template)
    asked = head(tokenizer)
    message = [{"role": "user", "content": MESSAGE}]
    options = {"enable_thinking": False, "thinking": False, "add_generation_prompt": True}
    text = tokenizer.apply_chat_template(message, tokenize=False, **options)
    assert asked.prompt.is_chat
    assert asked.text(ROW).startswith(text)
    (row,) = asked.encode("test", [ROW])
    expected = tokenizer(asked.text(ROW), add_special_tokens=False)["input_ids"]
    assert row.features["input_ids"] == expected
    assert row.features["input_ids"].count(1) == text.count("<s>")


@pytest.mark.parametrize(
    ("name", "end", "answer"),
    [
        ("gemma", "<end_of_turn>\n<start_of_turn>model\n", "0"),
        ("llama3_2", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "0"),
        ("phi3", "<|end|>\n<|assistant|>\n", "0"),
        ("qwen2_5", "<|im_end|>\n<|im_start|>assistant\n", "0"),
        ("qwen3", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "0"),
        ("cohere", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "0"),
        ("llava_next", " [/INST]", " 0"),
        ("smolvlm", "<end_of_utterance>\nAssistant:", " 0"),
    ],
)
def test_templates_of_well_known_models_are_used(name: str, end: str, answer: str) -> None:
    trl = importlib.util.find_spec("trl")
    if trl is None or trl.origin is None:
        pytest.skip("trl, which has these templates, is not installed")
    file = Path(trl.origin).parent / "chat_templates" / f"{name}.jinja"
    asked = head(byte_level(chat_template=file.read_text("utf-8")))
    assert asked.prompt.is_chat
    assert asked.prompt.verbalizers[0] == answer
    assert MESSAGE in asked.text(ROW)
    assert asked.text(ROW).endswith(end)


def test_the_answer_follows_as_the_template_writes_answers() -> None:
    assert head(byte_level(chat_template=TURNS)).prompt.verbalizers == ("0", "1", "2")
    spaced = head(byte_level(chat_template=INSTRUCTIONS))
    assert spaced.prompt.verbalizers == (" 0", " 1", " 2")


@pytest.mark.parametrize(
    ("template", "switch"), [(THINKING, "enable_thinking"), (THINKS_IF_TOLD, "thinking")]
)
def test_thinking_is_switched_off_and_told(template: str, switch: str) -> None:
    asked = head(byte_level(chat_template=template))
    assert asked.prompt.notes == (f"The chat template's switch {switch} is off.",)
    opened = asked.text(ROW).partition("<|assistant|>")[2]
    assert ("<think>" in opened) == ("</think>" in opened)


def test_a_thought_that_cannot_be_switched_off_is_told() -> None:
    always = TURNS.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n{% endif %}")
    asked = head(byte_level(chat_template=always))
    assert asked.text(ROW).endswith("<|assistant|>\n<think>\n")
    assert "opens a thought (<think>) and has no switch for it" in asked.prompt.notes[0]


def test_a_date_stands_still_and_is_told() -> None:
    asked = head(byte_level(chat_template=DATED))
    assert asked.text(ROW).startswith("Today is 26 July 2024.\n")
    assert "it is 2024-07-26 in every run" in asked.prompt.notes[0]


def test_messages_may_be_lists_of_parts() -> None:
    asked = head(byte_level(chat_template=PARTS))
    assert asked.text(ROW) == f"<|user|>\n{MESSAGE}</s>\n<|assistant|>\n"


@pytest.mark.parametrize(
    ("template", "reason"),
    [(FAILING, "only tools may be used"), (FORGETFUL, "does not write the user's message once")],
)
def test_a_template_that_does_not_work_is_told_and_not_used(template: str, reason: str) -> None:
    tokenizer = byte_level(chat_template=template)
    asked = head(tokenizer)
    assert not asked.prompt.is_chat
    assert asked.text(ROW) == f"\n{MESSAGE}\n"
    assert "The model is asked without its chat template" in asked.prompt.notes[0]
    assert reason in asked.prompt.notes[0]
    with pytest.raises(ConfigurationError, match=reason):
        head(tokenizer, chat="always")


def test_always_needs_a_chat_template() -> None:
    with pytest.raises(ConfigurationError) as error:
        head(byte_level(), chat="always")
    assert "the tokenizer has no chat template" in error.value.message
    assert 'prompt.chat="never"' in error.value.hint


def test_never_leaves_the_prompt_as_it_is() -> None:
    asked = head(byte_level(chat_template=TURNS), chat="never")
    assert asked.text(ROW) == f"\n{MESSAGE}\n"


def test_a_prompt_with_special_tokens_of_its_own_is_not_put_into_a_conversation() -> None:
    own = "<|user|>\n{premise} {hypothesis}</s>\n<|assistant|>\n"
    asked = head(byte_level(chat_template=TURNS), own)
    assert not asked.prompt.is_chat
    assert asked.text(ROW).startswith("<|user|>\na {man}")
    assert "prompt.template writes its special tokens itself" in asked.prompt.notes[0]


def test_a_first_token_that_the_chat_template_writes_is_not_doubled() -> None:
    asked = head(byte_level(chat_template=WITH_BOS), "<s>" + TEMPLATE)
    assert asked.text(ROW).count("<s>") == 1
    assert "which the chat template adds anyway" in asked.prompt.notes[0]


def test_few_shot_examples_are_earlier_turns() -> None:
    asked = head(byte_level(chat_template=WITH_BOS))
    longer, prefix = asked.few_shot([ROW])
    assert prefix == f"<s><|user|>\n{MESSAGE}</s>\n<|assistant|>\n1</s>\n<|user|>\n"
    assert longer.text(ROW) == prefix + asked.text(ROW).removeprefix("<s><|user|>\n")


def test_few_shot_examples_that_the_chat_template_does_not_take_are_refused() -> None:
    single = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
    asked = head(byte_level(chat_template=single + TURNS))
    with pytest.raises(ConfigurationError, match=r"eval\.few_shot: .*one turn only") as error:
        asked.few_shot([ROW])
    assert "eval.few_shot=0" in error.value.hint


def test_the_reports_code_makes_the_same_tokens() -> None:
    tokenizer = byte_level(splits_digits=True, around="<s> $A", chat_template=INSTRUCTIONS)
    asked = head(tokenizer)
    assert asked.prompt.answer_start
    (row,) = asked.encode("test", [ROW])
    assert ids_of_code(tokenizer, asked, ROW) == row.features["input_ids"]


def test_a_classification_head_is_asked_in_a_conversation_only_on_demand() -> None:
    tokenizer = byte_level(chat_template=TURNS)
    plain = ClassificationHead(tokenizer, PromptConfig(TEMPLATE), 256, [ROW])
    asked = ClassificationHead(tokenizer, PromptConfig(TEMPLATE, chat="always"), 256, [ROW])
    assert plain.text(ROW) == f"\n{MESSAGE}\n"
    assert asked.text(ROW) == f"<|user|>\n{MESSAGE}</s>\n<|assistant|>\n"
