"""All test rows that a model got wrong, in one table that can be searched and filtered.

A page with ten thousand rows must stay small and open quickly, so labels and tags are abbreviated.
If rows are very long, only as many are listed as fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from nlijob.analysis.tags import TAGS
from nlijob.analysis.wording import count, plural, signed_probability
from nlijob.records.outcome import CaseGroups, CaseRow
from nlijob.report.view.parts import View
from nlijob.report.view.text import visible

MOST_BYTES = 1_000_000
"""Largest total size of the rows, in bytes. The rest of a page takes about 0.3 MB, so that a page
stays below 1.5 MB."""
MARKUP = 95
"""Bytes of a row's HTML besides its texts."""
TAG_CODES = {
    "negation": "neg",
    "numbers": "num",
    "gender": "gen",
    "colours": "col",
    "absolute": "all",
    "high-overlap": "hi",
    "low-overlap": "lo",
    "removed": "rem",
    "added": "add",
    "order": "ord",
    "long-premise": "long",
}


@dataclass(frozen=True)
class ListedRow:
    """A row of the table."""

    kind: str
    """Its CSS class: "c" corrected, "s" still wrong, "n" newly broken."""
    index: int
    premise: str
    hypothesis: str
    gold: str
    before: str
    after: str
    margin: str
    tags: str
    right_in: str
    """Number of trainings that label the row correctly; "" where there is one training."""


KINDS = {"c": "corrected", "s": "still wrong", "n": "newly broken"}


def case_list(groups: CaseGroups, label_names: Sequence[str], trainings: int = 1) -> View:
    """The rows of all three kinds, kind by kind, as many as fit, and the options of the filters.

    A mistake is written as gold label and wrong answer, abbreviated, such as "ent>neu". Where there
    are several trainings, each row has the number of those that label it correctly.
    """
    of_kind = {
        "c": groups.rows_corrected,
        "s": groups.rows_still_wrong,
        "n": groups.rows_newly_broken,
    }
    kept = _fitting(of_kind.values())
    codes = abbreviations(label_names)
    rows = [
        _listed(kind, row, codes) for kind, of in of_kind.items() for row in of if row.index in kept
    ]
    whole = plural(sum(len(of) for of in of_kind.values()), "row")
    left_out = sum(len(of) for of in of_kind.values()) - len(rows)
    mistakes = Counter((row.gold, _wrong_answer(row)) for row in rows)
    names = dict(zip(codes, label_names, strict=True))
    tagged = Counter(code for row in rows for code in row.tags.split())
    tags = [(TAG_CODES[tag.key], tag) for tag in TAGS if tagged[TAG_CODES[tag.key]]]
    right = Counter(row.right_in for row in rows) if trainings > 1 else Counter()
    return View(
        rows=rows,
        title=f"{f'{count(len(rows))} of' if left_out else 'All'} {whole} that at least one model "
        "got wrong",
        note=f"{plural(left_out, 'row')} with smaller margins left out to keep this file small; "
        "results.json contains all rows."
        if left_out
        else "",
        kinds=[
            View(value=key, text=f"{name} ({count(len(of_kind[key]))})")
            for key, name in KINDS.items()
        ],
        mistakes=[
            View(
                value=f"{gold}>{wrong}",
                text=f"{names[gold]} predicted as {names[wrong]} ({count(number)})",
            )
            for (gold, wrong), number in mistakes.most_common()
        ],
        trainings=trainings,
        right_in=[
            View(value=number, text=f"{number} of {trainings} ({count(right[number])})")
            for number in sorted(filter(None, right), key=int)
        ],
        tags=[View(value=code, text=f"{tag.name} ({count(tagged[code])})") for code, tag in tags],
        legend=[
            *((code, name) for code, name in names.items() if code != name),
            *((code, f"{tag.name}: {tag.meaning}") for code, tag in tags),
        ],
    )


def abbreviations(label_names: Sequence[str]) -> tuple[str, ...]:
    """Shortest distinct prefixes of the names, of three letters or more."""
    longest = max(len(name) for name in label_names)
    for length in range(3, longest + 1):
        short = tuple(visible(name)[:length].strip() for name in label_names)
        if len(set(short)) == len(short) and all(" " not in code for code in short):
            return short
    return tuple(f"L{number}" for number in range(len(label_names)))


def _fitting(kinds: Iterable[Sequence[CaseRow]]) -> set[int]:
    """Row numbers that fit into `MOST_BYTES`, taken from the three kinds in turn."""
    left, kept = MOST_BYTES, set()
    for row in (row for turn in zip_longest(*kinds) for row in turn if row is not None):
        left -= len(row.premise.encode()) + len(row.hypothesis.encode()) + MARKUP
        if left < 0:
            break
        kept.add(row.index)
    return kept


def _listed(kind: str, row: CaseRow, codes: Sequence[str]) -> ListedRow:
    return ListedRow(
        kind=kind,
        index=row.index,
        premise=visible(row.premise),
        hypothesis=visible(row.hypothesis),
        gold=codes[row.label],
        before=codes[row.base_predicted],
        after=codes[row.tuned_predicted],
        margin=signed_probability(row.margin),
        tags=" ".join(TAG_CODES[tag] for tag in row.tags),
        right_in="" if row.right_in is None else str(row.right_in),
    )


def _wrong_answer(row: ListedRow) -> str:
    """The tuned model's answer if it is wrong, else the base model's."""
    return row.after if row.after != row.gold else row.before
