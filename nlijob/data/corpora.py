"""What the columns of a source mean: makes an `Example` of each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig
from nlijob.data.beyond import Beyond
from nlijob.data.labels import UNLABELLED, LabelReader
from nlijob.data.meaning import Meaning
from nlijob.data.table import Faults, Row, Table, shown
from nlijob.data.text import LONE_SURROGATE
from nlijob.errors import NotAvailableError
from nlijob.records.job import Example, Split

MOST_LABELS = 20
"""Unknown labels that a message lists."""


class Columns(NamedTuple):
    """Names of the columns that hold the texts and the label."""

    premise: str
    hypothesis: str
    label: str


KNOWN_COLUMNS = (
    Columns("premise", "hypothesis", "label"),  # hub, CB, RTE of SuperGLUE, FarsTail
    Columns("sentence1", "sentence2", "gold_label"),  # SNLI, MultiNLI, HANS, XNLI, e-SNLI, ...
    Columns("sentence1", "sentence2", "label"),  # RTE and WNLI of GLUE
    Columns("premise", "hypothesis", "gold_label"),
    Columns("premise", "hypothesis", "gold"),  # WANLI
    Columns("premise", "hypo", "label"),  # XNLI's translated training rows
    Columns("context", "hypothesis", "label"),  # ANLI
    Columns("sentence_a", "sentence_b", "entailment_label"),  # SICK
    Columns("sentence_a", "sentence_b", "entailment_judgment"),  # SICK in SemEval 2014
    Columns("sentence_a", "sentence_b", "label"),
    Columns("sentence", "question", "label"),  # QNLI: does the sentence answer the question?
)
"""Columns of known corpora, in small letters."""
WNLI_COLUMNS = ("index", "sentence1", "sentence2", "label")
WNLI_LABELS = {0: "not_entailment", 1: "entailment"}
"""GLUE's WNLI has bare numbers, in the other order than all its kin."""


def find_columns(data: DataConfig, names: Sequence[str], need_label: bool = True) -> Columns | None:
    """The columns of a source: those that the configuration names, else those of a known corpus.

    None if neither are there. `need_label`: whether a source without labels will not do.
    """
    asked = Columns(data.premise_column, data.hypothesis_column, data.label_column)
    by_small = {name.lower(): name for name in reversed(names)}
    for known in (asked, *KNOWN_COLUMNS):
        columns = Columns(
            *(
                own if own != usual else one if one in names else by_small.get(one, one)
                for own, usual, one in zip(asked, KNOWN_COLUMNS[0], known, strict=True)
            )
        )
        if all(name in names for name in (columns if need_label else columns[:2])):
            return columns
    return None


def no_columns(data: DataConfig, split: Split, names: Sequence[str]) -> NotAvailableError:
    """The fault of a source without the columns."""
    asked = (data.premise_column, data.hypothesis_column, data.label_column)
    missing = ", ".join(name for name in asked if name not in names)
    return NotAvailableError(
        f"{data.dataset}, split {data.split_name(split)}: no column {missing}; the columns are "
        f"{', '.join(map(_column_name, names))}",
        f"set {data.key('premise_column')}, {data.key('hypothesis_column')} and "
        f"{data.key('label_column')}; if the first line of a CSV or TSV file does not name its "
        f"columns, set {data.key('columns')} to their names",
    )


def read_examples(
    data: DataConfig,
    split: Split,
    table: Table,
    indices: Sequence[int],
    beyond: Beyond | None = None,
) -> tuple[list[Example], str]:
    """The chosen rows of a source as examples, and how integer labels were read, in words.

    `beyond` reads what else the rows say, where that is wanted. An unlabelled example has the label
    -1. Raises NotAvailableError that names the rows that cannot be used.
    """
    if not indices:
        return [], ""
    names = table.columns
    columns = find_columns(data, names)
    if columns is None:
        raise no_columns(data, split, names)
    labels = label_reader(data, split, table, columns.label)
    meaning = Meaning(data, columns.label, frozenset(columns), table.class_labels)
    examples: list[Example] = []
    faults = Faults()
    hints: set[str] = set()
    unknown: dict[str, None] = {}
    for number, place, _, row in table.chosen(indices):
        texts = row.get(columns.premise), row.get(columns.hypothesis)
        label = labels.number(row[columns.label]) if columns.label in row else None
        if label is None:
            faults.add(f"{place}: {_label_fault(row, columns.label)}")
            hints.add(
                f"labels are 0 to {len(data.label_names) - 1}, {', '.join(data.label_names)}, or "
                f"-1; map others with {data.key('label_map')}, or name them with "
                f"{data.key('label_names')}"
            )
            if columns.label in row:
                unknown.setdefault(shown(row[columns.label]))
        elif label != UNLABELLED and (wrong := _text_fault(row, columns)):
            faults.add(f"{place}: {wrong}")
            hints.add("give these rows both texts, or remove them, or set their label to -1")
        else:
            more = beyond.of(row, meaning) if beyond else ()
            examples.append(Example(number, str(texts[0]), str(texts[1]), label, *more))
    if faults.count:
        raise NotAvailableError(
            f"{data.dataset}, split {data.split_name(split)}: {plural(faults.count, 'row')} "
            f"cannot be used ({faults})" + _all_unknown([*unknown]),
            "; ".join(sorted(hints)),
        )
    return examples, labels.how()


def label_reader(data: DataConfig, split: Split, table: Table, column: str) -> LabelReader:
    """What reads the labels of a split. Raises NotAvailableError if their names are unknown."""
    try:
        return LabelReader(data, table.class_labels.get(column, {}))
    except NotAvailableError as error:
        raise NotAvailableError(
            f"{data.dataset}, split {data.split_name(split)}: {error.message}", error.hint
        ) from error


def _label_fault(row: Row, column: str) -> str:
    return f"label {shown(row[column])}" if column in row else f"it has no column {column}"


def _all_unknown(labels: Sequence[str]) -> str:
    """The labels that are unknown, for a message, if there are several."""
    if len(labels) < 2:
        return ""
    more = ", ..." if len(labels) > MOST_LABELS else ""
    return f"; unknown labels: {', '.join(labels[:MOST_LABELS])}{more}"


def _text_fault(row: Row, columns: Columns) -> str:
    """Which of the two texts is missing or not a text; "" if both are valid."""
    for column in columns[:2]:
        if column not in row:
            return f"it has no column {column}"
        value: Any = row[column]
        if not isinstance(value, str):
            return f"column {column} is {_missing(value) or shown(value)}, not a text"
        if LONE_SURROGATE.search(value):
            return f"column {column} has half of a character (a lone surrogate): {shown(value)}"
    return ""


def _missing(value: Any) -> str:
    """The name of a missing value; "" for any other."""
    if value is None:
        return "missing (null)"
    return "missing (NaN)" if isinstance(value, float) and math.isnan(value) else ""


def _column_name(name: str) -> str:
    """A column's name for a message; in quotes if it would not be seen for what it is."""
    is_plain = name.isprintable() and name.strip() == name and 0 < len(name) <= 60
    return name if is_plain else shown(name)
