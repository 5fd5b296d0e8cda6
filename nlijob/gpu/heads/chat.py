"""Puts a prompt into a model's chat template, as a text that rows can be filled into.

The template is rendered once, so that scoring, free output, the report's code and later predictions
all use one text, on whatever day.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nlijob.errors import first_line
from nlijob.prompts import escaped

SWITCHES = ("enable_thinking", "thinking")
"""Names that chat templates give to the switch for thinking before an answer."""
DAY = datetime.date(2024, 7, 26)
"""The date that a chat template is given, if it asks for one: a prompt must not change by day. It
is the one that Llama 3's templates take where they are given none."""
ANOTHER_DAY = datetime.date(2025, 9, 9)
DATE_CODES = "aAbBdjmyYHIMSp"
CONTENT = "THE-MESSAGE-OF-THE-USER"
ANSWER = "0"
THOUGHT = "<think>"


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
    try:
        return _new_chat(tokenizer, turns)
    except NoChat:
        raise
    except Exception as error:  # a template is code, and may raise anything
        raise NoChat(f"its chat template fails: {first_line(error)}") from error


def _new_chat(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> Chat:
    renderer, text = _working_renderer(tokenizer, turns)
    notes = [
        f"The chat template's switch {name} is off."
        for name in SWITCHES
        if renderer.render(switched_on=name) != text
    ]
    if text.rstrip().endswith(THOUGHT):
        notes.append(
            f"The chat template opens a thought ({THOUGHT}) and has no switch for it: the answer "
            "is read where the thought would begin."
        )
    if renderer.render(day=ANOTHER_DAY) != text:
        notes.append(
            f"The chat template states the date; it is {DAY.isoformat()} in every run, so that "
            "the prompt does not change from day to day."
        )
    before, _, after = text.partition(CONTENT)
    return Chat(before, after, _answer_lead(renderer, text), tuple(notes))


def _working_renderer(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> tuple[_Renderer, str]:
    """A renderer of messages in the form that the template reads, and what it makes of them.

    Templates of models that also see expect lists of parts; some take both forms.
    """
    errors = []
    for as_parts in (False, True):
        renderer = _Renderer(tokenizer, turns, as_parts)
        try:
            text = renderer.render()
        except Exception as error:  # a template is code, and may raise anything
            errors.append(error)
            continue
        if text.count(CONTENT) == 1:
            return renderer, text
    if errors:
        raise errors[0]
    raise NoChat("its chat template does not write the user's message once")


@dataclass(frozen=True)
class _Renderer:
    """Renders a conversation whose last message is `CONTENT`."""

    tokenizer: Any
    turns: Sequence[tuple[str, str]]
    """Questions and answers before the last message."""
    as_parts: bool
    """Whether a message is a list of parts instead of a text."""

    def render(self, answer: str = "", switched_on: str = "", day: datetime.date = DAY) -> str:
        """The conversation up to where the answer begins, or with the answer."""
        texts = [text for turn in self.turns for text in turn]
        texts += [CONTENT, answer] if answer else [CONTENT]
        text: str = self.tokenizer.apply_chat_template(
            [self._message(number, text) for number, text in enumerate(texts)],
            chat_template=_clock(day) + self.tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=not answer,
            **{name: name == switched_on for name in SWITCHES},
        )
        return text

    def _message(self, number: int, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": text}] if self.as_parts else text
        return {"role": "assistant" if number % 2 else "user", "content": content}


def _clock(day: datetime.date) -> str:
    """A macro in the place of the function that tells templates the time."""
    filters = "".join(f" | replace('%{code}', '{day:%{code}}')" for code in DATE_CODES)
    body = "{{ form | replace('%-', '%')" + filters + " }}"
    # the empty text keeps white space at the beginning of the template
    return "{% macro strftime_now(form) %}" + body + "{% endmacro %}{{ '' }}"


def _answer_lead(renderer: _Renderer, text: str) -> str | None:
    """The white space between the place where an answer begins and the answer."""
    try:
        whole = renderer.render(ANSWER)
    except Exception:  # a template is code, and may raise anything; then this is not known
        return None
    rest = whole[len(text) :]
    lead = rest[: len(rest) - len(rest.lstrip())]
    is_known = whole.startswith(text) and rest[len(lead) :].startswith(ANSWER)
    return lead if is_known else None
