"""Resolves a prompt for one tokenizer: its special tokens, the chat around it, and its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nlijob.config import PromptConfig
from nlijob.errors import ConfigurationError
from nlijob.gpu.heads.answers import AnswerTokens, Indistinct, answer_tokens
from nlijob.gpu.heads.chat import Chat, NoChat, new_chat
from nlijob.gpu.heads.special_tokens import added_tokens, unknown_tokens, written_tokens
from nlijob.prompts import (
    STYLES,
    Prompt,
    answered_prompts,
    literal_text,
    prompt_text,
    style_words,
    with_answers,
    with_prefix,
)
from nlijob.records.job import Example

CHECKED_PROMPTS = 64
NO_ROW = Example(0, "", "", 0)


@dataclass(frozen=True)
class Candidate:
    """Answers to try."""

    style: str
    words: tuple[str, ...]
    lead: str = ""
    """What stands before each word, behind the prompt."""

    @property
    def verbalizers(self) -> tuple[str, ...]:
        """The answers as they follow the prompt."""
        return tuple(self.lead + word for word in self.words)


class Resolver:
    """Resolves the prompt of a configuration for one tokenizer and one set of labels."""

    def __init__(
        self,
        tokenizer: Any,
        config: PromptConfig,
        label_names: Sequence[str],
        examples: Sequence[Example],
        has_answers: bool,
    ) -> None:
        """`examples`: rows to try answers on. `has_answers`: whether the head reads answers.

        Raises ConfigurationError if the prompt cannot be put into a chat template, as it asks for.
        """
        self._tokenizer = tokenizer
        self._config = config
        self._label_names = label_names
        self._examples = examples[:CHECKED_PROMPTS] or [NO_ROW]
        self._has_answers = has_answers
        self._notes: list[str] = []
        self._template = config.template
        self._chat: Chat | None = None
        if config.template:
            self._chat = self._new_chat()
            self._template = self._without_doubled(config.template)
            self._note_special_tokens()
            self._note_ending()

    def prompt(self) -> Prompt:
        """The resolved prompt. Raises ConfigurationError if its answers do not serve."""
        if not self._has_answers:
            return self._without_answers()
        given = self._config.verbalizers
        if given == "auto":
            return self._first_that_serves()
        try:
            return self._settled(Candidate("recipe", given))
        except Indistinct as error:
            raise self._error(error) from error

    def few_shot(self, prompt: Prompt, examples: Sequence[Example]) -> tuple[Prompt, str]:
        """The prompt with answered rows before it, and the text before the prompt.

        In a conversation these are earlier turns, and the text is all that precedes the message.
        Raises ConfigurationError if the chat template takes none.
        """
        if self._chat is None:
            prefix = answered_prompts(prompt, examples)
            return with_prefix(prompt, prefix), prefix
        message = self._message(tuple(text.strip() for text in prompt.verbalizers))
        turns = [
            (
                message.strip().format(premise=row.premise, hypothesis=row.hypothesis),
                prompt.verbalizers[row.label].strip(),
            )
            for row in examples
        ]
        try:
            chat = new_chat(self._tokenizer, turns)
        except NoChat as error:
            raise ConfigurationError(
                f"eval.few_shot: examples cannot be put into the chat template as turns: {error}",
                'set eval.few_shot=0 or prompt.chat="never"',
            ) from error
        longer = dataclasses.replace(prompt, template=chat.wrap(message))
        return longer, chat.before

    # ------------------------------------------------------------ the text

    def _new_chat(self) -> Chat | None:
        """The model's chat template, if the prompt is put into it."""
        wanted = self._config.chat
        if wanted == "never" or (wanted == "auto" and not self._has_answers):
            return None
        own = written_tokens(self._tokenizer, literal_text(self._config.template))
        own = [text for text in own if text != self._tokenizer.bos_token]
        if wanted == "auto" and own:
            if getattr(self._tokenizer, "chat_template", None):
                self._notes.append(
                    "The model's chat template is not used, because prompt.template writes its "
                    "special tokens itself."
                )
            return None
        try:
            chat = new_chat(self._tokenizer)
        except NoChat as error:
            if wanted == "always":
                raise ConfigurationError(
                    f"prompt.chat: the prompt cannot be put into a chat template: {error}",
                    'set prompt.chat="never", or take a model that was made for conversations',
                ) from error
            if getattr(self._tokenizer, "chat_template", None):
                self._notes.append(f"The model is asked without its chat template: {error}.")
            return None
        self._notes += chat.notes
        return chat

    def _without_doubled(self, template: str) -> str:
        """The template without special tokens at its ends that are added anyway."""
        for text in self._added_before():
            if text and template.lstrip().startswith(text):
                template = template.lstrip().removeprefix(text)
                self._note_left_out(text)
        for text in self._added_after():
            if text and template.rstrip().endswith(text):
                template = template.rstrip().removesuffix(text)
                self._note_left_out(text)
        return template

    def _note_left_out(self, text: str) -> None:
        who = "chat template" if self._chat else "tokenizer"
        self._notes.append(
            f"prompt.template writes {text}, which the {who} adds anyway; the prompt has it once."
        )

    def _added_before(self) -> list[str]:
        if self._chat:
            bos = self._tokenizer.bos_token
            return [bos] if bos and bos in self._chat.before else []
        return self._texts(added_tokens(self._tokenizer).before)

    def _added_after(self) -> list[str]:
        """Special tokens behind the text, the last one first; none if an answer is to follow."""
        if self._chat or self._has_answers:
            return []
        return self._texts(added_tokens(self._tokenizer).after)[::-1]

    def _texts(self, tokens: Sequence[int]) -> list[str]:
        return [str(text) for text in self._tokenizer.convert_ids_to_tokens(list(tokens))]

    def _note_special_tokens(self) -> None:
        written = literal_text(self._template)
        if known := written_tokens(self._tokenizer, written):
            self._notes.append(f"prompt.template writes special tokens: {', '.join(known)}.")
        if unknown := unknown_tokens(self._tokenizer, written):
            self._notes.append(
                f"prompt.template writes {', '.join(unknown)}, which is plain text to this "
                "tokenizer."
            )

    def _note_ending(self) -> None:
        behind = self._texts(added_tokens(self._tokenizer).after)
        if behind and self._has_answers and not self._chat:
            self._notes.append(
                f"The tokenizer puts {' '.join(behind)} behind a text; it is left out, because an "
                "answer follows the prompt."
            )

    def _message(self, words: Sequence[str]) -> str:
        return with_answers(self._template, words, self._label_names)

    def _text(self, words: Sequence[str]) -> str:
        """The template of the whole text, with answers filled in."""
        message = self._message(words)
        return self._chat.wrap(message) if self._chat else message

    def _without_answers(self) -> Prompt:
        """The prompt of a head that reads no answers; the text may name them all the same."""
        template = self._template
        if template:
            named = (style_words(style, self._label_names) for style in STYLES)
            template = self._text(next(filter(None, named)))
        return Prompt(template, is_chat=self._chat is not None, notes=tuple(self._notes))

    # ------------------------------------------------------------ the answers

    def _candidates(self) -> Iterator[Candidate]:
        """Digits, letters and names, each with the usual white space before it, or else without."""
        usual = "" if self._template[-1:].isspace() else " "
        if self._chat:
            usual = self._chat.answer_lead or ""
        other = "" if usual else " "
        for style in STYLES:
            if words := style_words(style, self._label_names):
                yield Candidate(style, words, usual)
                yield Candidate(style, words, other)

    def _first_that_serves(self) -> Prompt:
        faults: dict[str, str] = {}
        for candidate in self._candidates():
            try:
                return self._settled(candidate)
            except Indistinct as error:
                faults.setdefault(candidate.style, error.faults[0])
        listed = "; ".join(f"{style}: {fault}" for style, fault in faults.items())
        raise ConfigurationError(
            f"prompt.verbalizers: no answers serve this tokenizer ({listed})",
            "give prompt.verbalizers, one for each label, that begin with different tokens",
        )

    def _settled(self, candidate: Candidate) -> Prompt:
        """The prompt with these answers. Raises Indistinct if the tokenizer confuses them.

        White space at the end of the text may form a token with an answer. It then belongs to the
        answers, which leaves the text with its answer as it is.
        """
        template = self._text(tuple(word.strip() for word in candidate.words))
        verbalizers = candidate.verbalizers
        try:
            tokens = self._tokens(template, verbalizers)
        except Indistinct as error:
            shorter = template.rstrip()
            space = template[len(shorter) :]
            if not error.merges or not space:
                raise
            template, verbalizers = shorter, tuple(space + text for text in verbalizers)
            tokens = self._tokens(template, verbalizers)
        return Prompt(
            template=template,
            verbalizers=verbalizers,
            style=candidate.style,
            answer_start=tokens.start,
            label_tokens=tokens.labels,
            tokens_before=self._tokens_before(tokens.start),
            is_chat=self._chat is not None,
            notes=tuple(self._notes),
        )

    def _tokens(self, template: str, verbalizers: Sequence[str]) -> AnswerTokens:
        prompt = Prompt(template, is_chat=self._chat is not None)
        prompts = [prompt_text(prompt, example) for example in self._examples]

        def tokenize(texts: Sequence[str]) -> list[list[int]]:
            return open_ended(self._tokenizer, prompt, texts)

        return answer_tokens(tokenize, self._tokenizer, prompts, verbalizers)

    def _tokens_before(self, answer_start: tuple[int, ...]) -> tuple[int, ...] | None:
        if self._chat:
            return ()
        added = added_tokens(self._tokenizer)
        return added.before if answer_start or added.after else None

    def _error(self, error: Indistinct) -> ConfigurationError:
        """The error for answers that do not serve, which names answers that do."""
        try:
            served = self._first_that_serves()
        except ConfigurationError as none_serves:
            hint = none_serves.hint
        else:
            hint = (
                "answers must differ in the first token in which they are not alike; "
                f"prompt.verbalizers={list(served.verbalizers)} would serve, and so would "
                '"auto", which finds them'
            )
        faults = [f"prompt.verbalizers: {fault}" for fault in error.faults]
        return ConfigurationError.from_faults(faults, hint)


def open_ended(tokenizer: Any, prompt: Prompt, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts that an answer is to follow: none stand behind the text."""
    rows: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=not prompt.is_chat, return_attention_mask=False
    )["input_ids"]
    behind = () if prompt.is_chat else added_tokens(tokenizer).after
    if not behind:
        return rows
    return [row[: -len(behind)] if tuple(row[-len(behind) :]) == behind else row for row in rows]
