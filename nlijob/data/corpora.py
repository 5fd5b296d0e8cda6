"""What columns and labels of a source mean: makes an `Example` of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig
from nlijob.data.sources import Row
from nlijob.errors import NotAvailableError
from nlijob.records.job import Example, Split

UNLABELLED = -1
CORPUS_COLUMNS = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
SHOWN_FAULTS = 5


def read_examples(
    data: DataConfig, split: Split, source: Sequence[Row], indices: Sequence[int]
) -> list[Example]:
    """The chosen rows of a source as examples; an unlabelled one has the label -1.

    Raises NotAvailableError that names the rows that cannot be used.
    """
    if not indices:
        return []
    columns = _columns(data, split, source[indices[0]])
    examples: list[Example] = []
    faults: list[str] = []
    for index in indices:
        row = source[index]
        texts = [row.get(columns[key]) for key in ("premise", "hypothesis")]
        label = _label(row.get(columns["label"]), data)
        if label is None:
            faults.append(f"row {index}: label {row.get(columns['label'])!r}")
        elif not all(_is_text(text) for text in texts) and label != UNLABELLED:
            faults.append(f"row {index}: premise or hypothesis is not a text")
        else:
            examples.append(Example(index, str(texts[0]), str(texts[1]), label))
    if faults:
        raise NotAvailableError(
            f"{data.dataset}, split {split}: {plural(len(faults), 'row')} cannot be used "
            f"({'; '.join(faults[:SHOWN_FAULTS])}{'; ...' if len(faults) > SHOWN_FAULTS else ''})",
            f"labels are 0 to {len(data.label_names) - 1}, {', '.join(data.label_names)}, or -1; "
            "map others with data.label_map",
        )
    return examples


def _is_text(value: Any) -> bool:
    """Whether a value is valid text. JSON can also encode lone surrogates, which are not."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _columns(data: DataConfig, split: Split, row: Row) -> dict[str, str]:
    """Return the column names: the recipe's, or the original corpus's if the source has those."""
    asked = {
        "premise": data.premise_column,
        "hypothesis": data.hypothesis_column,
        "label": data.label_column,
    }
    for columns in (asked, CORPUS_COLUMNS):
        if all(name in row for name in columns.values()):
            return columns
    missing = ", ".join(name for name in asked.values() if name not in row)
    raise NotAvailableError(
        f"{data.dataset}, split {split}: no column {missing}; the columns are {', '.join(row)}",
        "set data.premise_column, data.hypothesis_column and data.label_column",
    )


def _label(value: Any, data: DataConfig) -> int | None:
    """Return the label number of a source value; -1 for unlabelled, None for an unknown value."""
    text = str(value).strip()
    if text in data.label_map:
        return data.label_map[text]
    if text in data.label_names:
        return data.label_names.index(text)
    if text in ("-", str(UNLABELLED)):
        return UNLABELLED
    if text.isdecimal() and int(text) < len(data.label_names):
        return int(text)
    return None
