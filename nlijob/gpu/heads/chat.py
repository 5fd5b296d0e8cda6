"""Puts a prompt into a model's chat template, as a text that rows can be filled into.

The template is rendered once, so that scoring, free output, the report's code and later predictions
all use one text, on whatever day.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlijob.errors import first_line
from nlijob.prompts import escaped

SWITCHES = ("enable_thinking", "thinking")
"""Names that chat templates give to the switch for thinking before an answer."""
DATE = datetime.date(2024, 7, 26)
"""The date that a chat template is given, if it asks for one: a prompt must not change by day. It
is the one that Llama 3's templates take where they are given none."""
CONTENT = "THE-MESSAGE-OF-THE-USER"
ANSWER = "0"

Message = Mapping[str, Any]


class NoChat(Exception):  # noqa: N818 - an outcome of trying, not a fault of the job
    """A chat template cannot be used; the message says why."""


@dataclass(frozen=True)
class Chat:
    """What a chat template writes around a message of the user."""

    before: str
    after: str
    answer_lead: str | None
    """White space that the template writes before an answer; None if it writes something else."""
    notes: tuple[str, ...] = ()

    def wrap(self, template: str) -> str:
        """Return the template of a message as the template of the conversation."""
        return escaped(self.before) + template.strip() + escaped(self.after)


def new_chat(tokenizer: Any, turns: Sequence[tuple[str, str]] = ()) -> Chat:
    """Render the chat template around a message, after `turns` of questions and answers.

    Raises NoChat if the tokenizer has none, or one that does not work.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise NoChat("the tokenizer has no chat template")
    clock = _Clock()
    options: dict[str, Any] = {"strftime_now": clock.strftime_now, **dict.fromkeys(SWITCHES, False)}
    try:
        as_parts, text = _rendered(tokenizer, turns, options)
        switches = [
            name
            for name in SWITCHES
            if _render(tokenizer, _messages(turns, as_parts), {**options, name: True}) != text
        ]
        lead = _answer_lead(tokenizer, _messages(turns, as_parts), options, text)
    except NoChat:
        raise
    except Exception as error:  # a template is code, and may raise anything
        raise NoChat(f"its chat template fails: {first_line(error)}") from error
    before, _, after = text.partition(CONTENT)
    notes = [f"The chat template's switch {name} is off." for name in switches]
    if clock.was_asked:
        notes.append(
            f"The chat template states the date; it is {DATE.isoformat()} in every run, so that "
            "the prompt does not change from day to day."
        )
    return Chat(before, after, lead, tuple(notes))


class _Clock:
    """A template's clock, which stands still."""

    def __init__(self) -> None:
        self.was_asked = False

    def strftime_now(self, form: str) -> str:
        self.was_asked = True
        return DATE.strftime(form)


def _rendered(
    tokenizer: Any, turns: Sequence[tuple[str, str]], options: Mapping[str, Any]
) -> tuple[bool, str]:
    """The conversation up to the answer, and whether messages are lists of parts.

    Templates of models that also see expect the latter; some take both forms.
    """
    errors = []
    for as_parts in (False, True):
        try:
            text = _render(tokenizer, _messages(turns, as_parts), options)
        except Exception as error:  # a template is code, and may raise anything
            errors.append(error)
            continue
        if text.count(CONTENT) == 1:
            return as_parts, text
    if errors:
        raise errors[0]
    raise NoChat("its chat template does not write the user's message once")


def _messages(turns: Sequence[tuple[str, str]], as_parts: bool) -> list[Message]:
    texts = [text for turn in (*turns, (CONTENT,)) for text in turn]
    return [
        {
            "role": "assistant" if number % 2 else "user",
            "content": [{"type": "text", "text": text}] if as_parts else text,
        }
        for number, text in enumerate(texts)
    ]


def _render(
    tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Any], answer: str = ""
) -> str:
    """The conversation; it ends with the answer, or else where the answer begins."""
    if answer:
        as_parts = isinstance(messages[0]["content"], list)
        content = [{"type": "text", "text": answer}] if as_parts else answer
        messages = [*messages, {"role": "assistant", "content": content}]
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=not answer, **options
    )
    return text


def _answer_lead(
    tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Any], text: str
) -> str | None:
    """The white space between the place where an answer begins and the answer."""
    try:
        whole = _render(tokenizer, messages, options, ANSWER)
    except Exception:  # a template is code, and may raise anything; then this is not known
        return None
    rest = whole[len(text) :]
    lead = rest[: len(rest) - len(rest.lstrip())]
    is_known = whole.startswith(text) and rest[len(lead) :].startswith(ANSWER)
    return lead if is_known else None
