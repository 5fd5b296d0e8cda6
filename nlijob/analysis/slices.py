"""Effect of tuning on slices of the test rows: by gold label, length, word overlap, tag and more.

Where the source says more about its rows, there are slices by whether their annotators agree, and
by the values of further columns. Slices depend only on what the source says, never on a prediction.
They overlap. Because testing many of them would find something by chance, p-values are
Holm-adjusted over all slices that were tested, of whatever kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nlijob.analysis.annotators import all_agree, is_judged
from nlijob.analysis.cases import Pair, pairs
from nlijob.analysis.clustered import accuracy_interval, paired_difference
from nlijob.analysis.columns import MOST_VALUES_OF_A_SET, Grouping, groupings, shown_name
from nlijob.analysis.premises import Premises, premises_of
from nlijob.analysis.statistics import holm
from nlijob.analysis.tags import HIGH_OVERLAP, LOW_OVERLAP, TAGS, compare_words, is_high, is_low
from nlijob.analysis.word_forms import words
from nlijob.analysis.wording import count, listed, p_value, plural, points
from nlijob.records.job import Example, Prediction
from nlijob.records.outcome import Slice

LEAST_ROWS = 6
"""Fewest rows (or premises, where they repeat) of a tested slice: with fewer, p stays above 0.05
even if every row changes."""
NAMED = 12
"""Most slices that a sentence names."""
COLUMN = "column"
"""Family of the slices by the values of further columns."""
ANNOTATORS = "annotators"
"""Family of the slices by whether the annotators agree."""
OF_THE_SOURCE = (COLUMN, ANNOTATORS)
"""Families with a part of their own on the page."""
OVERLAP_TAGS = ("high-overlap", "low-overlap")
"""Tags without a slice of their own, as the overlap slices have the same bounds."""


@dataclass(frozen=True)
class _Kind:
    """A slice before it is measured, with the row numbers that it contains."""

    family: str
    key: str
    name: str
    meaning: str
    indices: frozenset[int]
    column: str = ""
    value: str = ""


def measure_slices(
    base: Iterable[Prediction],
    tuned: Iterable[Prediction],
    examples: Iterable[Example],
    label_names: Sequence[str],
    columns: Sequence[str] | None = None,
) -> tuple[Slice, ...]:
    """All slices that have rows, sorted.

    Significant changes (adjusted p below 0.05) come first, from the largest gain to the largest
    loss, then the other tested slices by the size of their change, then those with fewer than
    `LEAST_ROWS` rows. Ties go to the slice with more rows. `examples` are the test rows; `columns`
    are the further columns to slice by, None for those that look like categories. Raises ValueError
    if the models labelled different rows, KeyError if a row has no text, ConfigurationError if the
    rows do not have one of the `columns`.
    """
    matched = pairs(base, tuned)
    texts = {example.index: example for example in examples}
    rows = {pair.index: texts[pair.index] for pair in matched}
    kinds = [
        *_by_gold_label(matched, label_names),
        *_by_length(rows),
        *_by_overlap_and_tag(rows),
        *_by_agreement(rows.values()),
        *_by_column(groupings([*rows.values()], columns)),
    ]
    return _measured(kinds, matched, premises_of(rows.values()))


def measure_set_slices(
    base: Iterable[Prediction],
    tuned: Iterable[Prediction],
    examples: Sequence[Example],
    label_names: Sequence[str],
) -> tuple[Slice, ...]:
    """The slices of a further test set: by its own labels and by its further columns.

    In the order of `measure_slices`, and p-values are adjusted over these slices alone. Raises
    ValueError if the models labelled different rows.
    """
    matched = pairs(base, tuned)
    columns = groupings(examples, most_values=MOST_VALUES_OF_A_SET)
    kinds = [*_by_gold_label(matched, label_names), *_by_column(columns)]
    return _measured(kinds, matched, premises_of(examples))


def slices_sentence(slices: Sequence[Slice]) -> str:
    """A sentence on the slices that tuning made significantly worse, with the figures."""
    judged = [found for found in slices if found.judged]
    if not judged:
        return f"No slice has the {LEAST_ROWS} {_unit(slices)} needed for a test."
    worse = [found for found in judged if found.is_significant and found.change < 0]
    tested = f"{plural(len(judged), 'slice')} tested"
    by_premise = any(found.premises is not None for found in judged)
    tests = "exact McNemar tests over premises" if by_premise else "exact McNemar tests"
    test = f"{tests}, Holm-adjusted over all of them"
    if not worse:
        fell = sum(found.change < 0 for found in judged)
        fewer = f"{count(fell) if fell else 'none'} of them {'have' if fell > 1 else 'has'} fewer"
        return (
            f"Tuning made none of the {tested} significantly worse ({test}; {fewer} correct rows "
            "than before). A small slice could have become worse without being detected."
        )
    named = [
        f"“{found.name}” ({points(found.change)} on {plural(found.rows, 'row')}, adjusted "
        f"{p_value(found.adjusted_p or 0.0)})"
        for found in worse
    ]
    more = [f"{count(len(named) - NAMED)} more"] if len(named) > NAMED else []
    return (
        f"Tuning made {count(len(worse))} of the {tested} significantly worse ({test}): "
        f"{listed([*named[:NAMED], *more])}."
    )


def too_few_sentence(slices: Sequence[Slice]) -> str:
    """A sentence on the slices that are too small for a test; "" if there are none.

    Those of further columns and annotators are left out, as their tables say so.
    """
    few = [
        f"“{found.name}” ({found.rows})"
        for found in slices
        if not found.judged and found.family not in OF_THE_SOURCE
    ]
    if not few:
        return ""
    return f"Not tested, as they have fewer than {LEAST_ROWS} {_unit(slices)}: {listed(few)}."


def _unit(slices: Sequence[Slice]) -> str:
    return "rows" if all(found.premises is None for found in slices) else "different premises"


def _measured(
    kinds: Iterable[_Kind], matched: Sequence[Pair], premises: Premises
) -> tuple[Slice, ...]:
    measured = [
        _slice(kind, [pair for pair in matched if pair.index in kind.indices], premises)
        for kind in kinds
        if kind.indices
    ]
    return tuple(sorted(_tested(measured), key=_rank))


def _tested(found: Sequence[Slice]) -> Iterator[Slice]:
    """All slices, with p adjusted over those that were tested."""
    judged = [own for own in found if own.p is not None]
    adjusted = holm([own.p for own in judged if own.p is not None])
    for own, adjusted_p in zip(judged, adjusted, strict=True):
        yield replace(own, adjusted_p=adjusted_p)
    yield from (own for own in found if own.p is None)


def _slice(kind: _Kind, own: Sequence[Pair], premises: Premises) -> Slice:
    """A slice with its p; p is not adjusted, and None with too few rows or premises."""
    numbers = [premises[pair.index] for pair in own]
    before, after = [pair.base.is_right for pair in own], [pair.tuned.is_right for pair in own]
    change = paired_difference(after, before, numbers)
    units = len(own) if change.premises is None else change.premises
    return Slice(
        family=kind.family,
        key=kind.key,
        name=kind.name,
        meaning=kind.meaning,
        rows=len(own),
        base_correct=sum(before),
        tuned_correct=sum(after),
        corrected=change.gained,
        broken=change.lost,
        base_interval=accuracy_interval(before, numbers),
        tuned_interval=accuracy_interval(after, numbers),
        change=change.difference,
        change_interval=change.interval,
        p=change.mcnemar_p if units >= LEAST_ROWS else None,
        adjusted_p=None,
        premises=change.premises,
        column=kind.column,
        value=kind.value,
        wrong_rows=tuple(
            pair.index for pair in own if not (pair.base.is_right and pair.tuned.is_right)
        ),
    )


def _rank(found: Slice) -> tuple[int, float, int]:
    if found.is_significant:
        return (0, -found.change, -found.rows)
    return (1 if found.judged else 2, -abs(found.change), -found.rows)


def _by_gold_label(matched: Iterable[Pair], label_names: Sequence[str]) -> Iterator[_Kind]:
    gold = {pair.index: pair.base.label for pair in matched}
    for label, name in enumerate(label_names):
        yield _Kind(
            "gold label",
            name,
            f"gold label {name}",
            f"the gold label is {name}",
            frozenset(index for index, own in gold.items() if own == label),
        )


def _by_length(rows: Mapping[int, Example]) -> Iterator[_Kind]:
    """Thirds of the rows by the number of words; none if all rows are equally long."""
    lengths = {i: len(words(row.premise)) + len(words(row.hypothesis)) for i, row in rows.items()}
    if len({*lengths.values()}) < 2:
        return
    ranked = sorted(lengths.values())
    first, second = (ranked[(len(ranked) - 1) * third // 3] for third in (1, 2))
    bands = (
        ("short", -1, first, f"up to {plural(first, 'word')} in both texts together"),
        ("medium", first, second, f"{first + 1} to {second} words in both texts together"),
        ("long", second, ranked[-1], f"more than {plural(second, 'word')} in both texts together"),
    )
    for key, above, up_to, meaning in bands:
        indices = frozenset(i for i, length in lengths.items() if above < length <= up_to)
        yield _Kind("length", key, f"{key} texts", meaning, indices)


def _by_overlap_and_tag(rows: Mapping[int, Example]) -> Iterator[_Kind]:
    compared = {i: compare_words(row.premise, row.hypothesis) for i, row in rows.items()}
    overlap = {i: found.overlap for i, found in compared.items() if found.overlap is not None}
    low = frozenset(i for i, share in overlap.items() if is_low(share))
    high = frozenset(i for i, share in overlap.items() if is_high(share))
    least, most = f"{100 * LOW_OVERLAP:.0f} %", f"{100 * HIGH_OVERLAP:.0f} %"
    bands = (
        ("low", "low", f"{least} or less", low),
        (
            "middle",
            "medium",
            f"more than {least} and less than {most}",
            frozenset(overlap) - low - high,
        ),
        ("high", "high", f"{most} or more", high),
    )
    for key, name, bounds, indices in bands:
        meaning = f"{bounds} of the hypothesis's content words are also in the premise, as written"
        yield _Kind("word overlap", key, f"{name} word overlap", meaning, indices)
    for tag in TAGS:
        if tag.key not in OVERLAP_TAGS:
            indices = frozenset(i for i, found in compared.items() if tag.key in found.tags)
            yield _Kind("tag", tag.key, tag.name, tag.meaning, indices)


def _by_agreement(rows: Iterable[Example]) -> Iterator[_Kind]:
    """Rows on which all annotators agree, and the others; none if single annotators are unknown."""
    judged = [row for row in rows if is_judged(row.votes)]
    agreed = frozenset(row.index for row in judged if all_agree(row.votes))
    disagreed = frozenset(row.index for row in judged) - agreed
    meaning = "all annotators of the row gave the same label"
    yield _Kind(ANNOTATORS, "agree", "annotators agree", meaning, agreed)
    meaning = "the annotators of the row gave different labels"
    yield _Kind(ANNOTATORS, "disagree", "annotators disagree", meaning, disagreed)


def _by_column(groups: Iterable[Grouping]) -> Iterator[_Kind]:
    for group in groups:
        column = shown_name(group.column)
        for value, indices in group.rows.items():
            shown = shown_name(value)
            yield _Kind(
                family=COLUMN,
                key=f"{group.column}: {value}",
                name=f"{column}: {shown}",
                meaning=f"the column “{column}” is “{shown}”",
                indices=indices,
                column=group.column,
                value=value,
            )
