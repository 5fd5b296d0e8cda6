"""The exact model input."""

from __future__ import annotations

from nlijob.analysis.wording import count, plural
from nlijob.heads import describe
from nlijob.records.job import SPLITS, PromptRecord
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Column, Table, View, columns, row, text_columns
from nlijob.report.view.text import visible

ANSWERS = {
    "digits": "Answers: digits",
    "letters": "Answers: letters, as digits do not serve",
    "names": "Answers: the labels' names, as neither digits nor letters serve",
    "recipe": "Answers, as the configuration gives them",
}
"""Title of the table of answers, by their style."""


def prompt_section(results: Results) -> View:
    """Template, an example with its tokens, the label tokens, and lengths by split."""
    prompt = results.prompt
    return View(
        lead=_lead(results),
        template=visible(prompt.template),
        example=visible(prompt.example_prompt),
        notes=prompt.notes,
        tokens=_tokens(prompt),
        example_length=plural(len(prompt.example_tokens), "token"),
        labels=_labels_table(results) if prompt.label_tokens else None,
        lengths=_lengths_table(prompt),
    )


def _lead(results: Results) -> str:
    lead = describe(results.run.config.model.head).reading
    if not results.prompt.template:
        lead += " There is no template: the tokenizer joins premise and hypothesis."
    if results.prompt.is_chat:
        lead += " The text is the conversation that the model's chat template writes."
    return lead


def _tokens(prompt: PromptRecord) -> str:
    """The example's tokens: a line each with the id and the text, or the ids alone."""
    if not prompt.example_token_texts:
        return " ".join(map(str, prompt.example_tokens))
    pairs = zip(prompt.example_tokens, prompt.example_token_texts, strict=True)
    return "\n".join(f"{token:>7}  {_shown(text)}" for token, text in pairs)


def _labels_table(results: Results) -> Table:
    prompt, names = results.prompt, results.manifest.label_names
    answers = prompt.verbalizers or prompt.label_token_texts
    rows = zip(names, answers, prompt.label_token_texts, prompt.label_tokens, strict=True)
    return Table(
        ANSWERS.get(prompt.answer_style, "Label tokens"),
        (*text_columns("label", "answer", "token that decides"), Column("token id")),
        tuple(
            row(name, f"“{_shown(answer)}”", f"“{_shown(text)}”", str(token))
            for name, answer, text, token in rows
        ),
    )


def _lengths_table(prompt: PromptRecord) -> Table:
    return Table(
        f"Length of the model input in tokens (limit: {count(prompt.max_length)})",
        columns("split", "mean", "longest"),
        tuple(
            row(split, f"{prompt.mean_tokens[split]:.1f}", count(prompt.longest_tokens[split]))
            for split in SPLITS
            if split in prompt.longest_tokens
        ),
    )


def _shown(text: str) -> str:
    """A piece of text on one line."""
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))
