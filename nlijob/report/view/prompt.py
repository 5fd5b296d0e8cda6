"""The exact model input."""

from __future__ import annotations

from nlijob.analysis.wording import count, plural
from nlijob.heads import describe
from nlijob.records.job import SPLITS, PromptRecord
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Column, Table, View, columns, row, text_columns
from nlijob.report.view.text import visible


def prompt_section(results: Results) -> View:
    """Template, an example with its tokens, the label tokens, and lengths by split."""
    prompt = results.prompt
    return View(
        lead=_lead(results),
        template=visible(prompt.template),
        example=visible(prompt.example_prompt),
        tokens=" ".join(map(str, prompt.example_tokens)),
        example_length=plural(len(prompt.example_tokens), "token"),
        labels=_labels_table(results) if prompt.label_tokens else None,
        lengths=_lengths_table(prompt),
    )


def _lead(results: Results) -> str:
    lead = describe(results.run.config.model.head).reading
    if not results.prompt.template:
        lead += " There is no template: the tokenizer joins premise and hypothesis."
    return lead


def _labels_table(results: Results) -> Table:
    prompt, names = results.prompt, results.manifest.label_names
    rows = zip(names, prompt.label_token_texts, prompt.label_tokens, strict=True)
    return Table(
        "Label tokens",
        (*text_columns("label", "text"), Column("token id")),
        tuple(row(name, f"“{visible(text)}”", str(token)) for name, text, token in rows),
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
