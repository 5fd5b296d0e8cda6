"""All test rows that a model got wrong, in one table that can be filtered and downloaded.

A page with ten thousand rows must stay small and open quickly, so labels and tags are abbreviated.
If rows are very long, only as many are listed as fit.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from nlijob.analysis.tags import TAGS, Tag, text_tags
from nlijob.analysis.wording import count, plural, signed_probability
from nlijob.records.outcome import Case, CaseGroups, CaseRow
from nlijob.report.view.parts import View
from nlijob.report.view.text import visible

MOST_BYTES = 910_000
"""Largest total size of the rows, in bytes. The rest of a page takes about 0.4 MB, so that a page
stays below 1.5 MB."""
MARKUP = 107
"""Bytes of a row's HTML and of its probabilities, besides its texts."""
DIGITS = string.digits + string.ascii_lowercase
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
    """Its CSS class, a key of `KINDS`."""
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


KINDS = {"n": "newly broken", "s": "still wrong", "c": "corrected"}


def case_list(groups: CaseGroups, label_names: Sequence[str], trainings: int = 1) -> View:
    """The rows of all three kinds, kind by kind, as many as fit, and the choices of the filters.

    The filters hold for the cases that are shown in detail too. Labels and tags are abbreviated in
    their values, as in the rows. Where there are several trainings, each row has the number of
    those that label it correctly.
    """
    of_kind = rows_by_kind(groups)
    whole = sum(map(len, of_kind.values()))
    kept = _fitting(of_kind.values())
    codes = abbreviations(label_names)
    pairs = [(kind, row) for kind, of in of_kind.items() for row in of if row.index in kept]
    rows = [_listed(kind, row, codes) for kind, row in pairs]
    left_out = whole - len(rows)
    names = dict(zip(codes, map(visible, label_names), strict=True))
    tagged = Counter(code for row in rows for code in row.tags.split())
    tags = {TAG_CODES[tag.key]: tag for tag in TAGS if tagged[TAG_CODES[tag.key]]}
    return View(
        rows=rows,
        title=f"{f'{count(len(rows))} of' if left_out else 'All'} {plural(whole, 'row')} that at "
        "least one model got wrong",
        note=f"{plural(left_out, 'row')} with smaller margins left out to keep this file small; "
        "results.json contains all rows."
        if left_out
        else "",
        filters=_filters(rows, names, tags, trainings),
        trainings=trainings if trainings > 1 else 0,
        probabilities="".join(_thousandths(row) for _, row in pairs),
        names=json.dumps(
            {
                "kinds": KINDS,
                "labels": names,
                "tags": {code: tag.name for code, tag in tags.items()},
            },
            ensure_ascii=False,
        ),
        legend=[
            *((code, name) for code, name in names.items() if code != name),
            *((code, f"{tag.name}: {tag.meaning}") for code, tag in tags.items()),
        ],
    )


def rows_by_kind(groups: CaseGroups) -> dict[str, tuple[CaseRow, ...]]:
    """The rows of each kind, by its key in `KINDS` and in that order."""
    return {
        "n": groups.rows_newly_broken,
        "s": groups.rows_still_wrong,
        "c": groups.rows_corrected,
    }


def marks(case: Case, label_names: Sequence[str]) -> View:
    """What the filters look at in a case that is shown in detail, besides its kind."""
    codes = abbreviations(label_names)
    return View(
        gold=codes[case.label],
        before=codes[case.base_predicted],
        after=codes[case.tuned_predicted],
        tags=" ".join(TAG_CODES[tag] for tag in text_tags(case.premise, case.hypothesis)),
        right="" if case.right_in is None else str(case.right_in),
    )


def _filters(
    rows: Sequence[ListedRow], labels: Mapping[str, str], tags: Mapping[str, Tag], trainings: int
) -> list[View]:
    """A choice for each property of a row, with the number of rows that have it."""
    numbers = sorted({row.right_in for row in rows if row.right_in}, key=int)
    right = {number: f"{number} of {trainings}" for number in numbers} if trainings > 1 else {}
    tag_names = {code: tag.name for code, tag in tags.items()}
    return [
        View(
            name=name,
            title=title,
            options=[
                View(value=value, text=f"{text} ({count(found[value])})")
                for value, text in texts.items()
            ],
        )
        for name, title, texts, found in (
            ("kind", "kind", KINDS, Counter(row.kind for row in rows)),
            ("gold", "gold label", labels, Counter(row.gold for row in rows)),
            ("before", "base model", labels, Counter(row.before for row in rows)),
            ("after", "tuned model", labels, Counter(row.after for row in rows)),
            ("tag", "tag", tag_names, Counter(tag for row in rows for tag in row.tags.split())),
            ("right", "correct in", right, Counter(row.right_in for row in rows)),
        )
        if texts
    ]


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


def _thousandths(row: CaseRow) -> str:
    """Both models' probability of the gold label, and the margin plus 1, in thousandths.

    Two, two and three digits in base 36.
    """
    values = ((row.base_gold_probability, 2), (row.tuned_gold_probability, 2), (1 + row.margin, 3))
    return "".join(base_36(round(1000 * value)).rjust(width, "0") for value, width in values)


def base_36(number: int) -> str:
    """A number that is not negative, with the digits 0 to 9 and a to z."""
    rest, digit = divmod(number, len(DIGITS))
    return (base_36(rest) if rest else "") + DIGITS[digit]
