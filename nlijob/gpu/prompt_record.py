"""How the rows become model input, as a record, and what to know about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nlijob.analysis.wording import plural
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.heads.rows import lengths_of
from nlijob.records.job import Example, PromptRecord, Split


def prompt_notes(head: Head, rows: Mapping[Split, Sequence[Encoded]]) -> Iterator[str]:
    """What to know about the prompt and the texts in it, a sentence each."""
    yield from head.prompt.notes
    for split, of_split in rows.items():
        if special := head.with_special_tokens(of_split):
            yield (
                f"{len(special):,} of {plural(len(of_split), f'{split} row')} write special "
                "tokens in their texts, which the model reads as such (first: row "
                f"{special[0].example.index})."
            )


def dropped_rows(
    examples: Mapping[Split, Sequence[Example]], rows: Mapping[Split, Sequence[Encoded]]
) -> dict[str, tuple[int, ...]]:
    """Split -> the numbers of its examples that are not among the rows, where there are any.

    They are too long.
    """
    dropped: dict[str, tuple[int, ...]] = {}
    for split, of_split in rows.items():
        if len(of_split) == len(examples[split]):
            continue
        kept = {row.example.index for row in of_split}
        left_out = tuple(e.index for e in examples[split] if e.index not in kept)
        if left_out:
            dropped[split] = left_out
    return dropped


def prompt_record(
    head: Head,
    tokenizer: Any,
    rows: Mapping[Split, Sequence[Encoded]],
    dropped: dict[str, tuple[int, ...]],
    max_length: int,
    few_shot_prefix: str,
) -> PromptRecord:
    """How rows become model input. `dropped`: see `dropped_rows`."""
    first = rows["test"][0]
    tokens = first.features["input_ids"]
    decode = tokenizer.decode
    lengths = {split: lengths_of(of_split) for split, of_split in rows.items()}
    prompt = head.prompt
    return PromptRecord(
        template=prompt.template,
        label_tokens=head.label_tokens,
        label_token_texts=tuple(decode([token]) for token in head.label_tokens),
        example_prompt=decode(tokens),
        example_tokens=tuple(tokens),
        longest_tokens={split: int(of_split.max()) for split, of_split in lengths.items()},
        mean_tokens={s: int(of_split.sum()) / len(of_split) for s, of_split in lengths.items()},
        max_length=max_length,
        few_shot_prefix=few_shot_prefix,
        verbalizers=prompt.verbalizers,
        answer_style=prompt.style,
        answer_start=prompt.answer_start,
        answer_start_text=decode(list(prompt.answer_start)),
        is_chat=prompt.is_chat,
        notes=tuple(prompt_notes(head, rows)),
        example_token_texts=tuple(decode([token]) for token in tokens),
        dropped=dropped,
        tokens_before=prompt.tokens_before,
    )
