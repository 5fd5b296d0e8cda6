"""What tuning did to the test rows of each kind: by gold label, length, word overlap and tag.

Slices are made from the texts and the gold labels alone, never from a prediction. They overlap, and
looking at many of them would turn up something by chance: p-values are Holm-adjusted over all that
were judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nlijob.analysis.cases import Pair, pairs
from nlijob.analysis.statistics import (
    holm,
    mcnemar_p,
    paired_difference_interval,
    wilson_interval,
)
from nlijob.analysis.tags import (
    HIGH_OVERLAP,
    LOW_OVERLAP,
    TAGS,
    compare_words,
    is_high,
    is_low,
    words,
)
from nlijob.analysis.wording import count, listed, p_value, plural, points
from nlijob.records import Example, Prediction, Slice

LEAST_ROWS = 6
"""Rows from which a slice is judged: with fewer not even a change of every row has p < 0.05."""
OVERLAP_TAGS = ("high-overlap", "low-overlap")
"""Left out of the tags: the overlap slices have the same bounds."""


@dataclass(frozen=True)
class _Kind:
    """A slice before it is measured: the row numbers that it holds."""

    family: str
    key: str
    name: str
    meaning: str
    indices: frozenset[int]


def measure_slices(
    base: Iterable[Prediction],
    tuned: Iterable[Prediction],
    examples: Iterable[Example],
    label_names: Sequence[str],
) -> tuple[Slice, ...]:
    """Every slice that has rows, the most telling first.

    First those told apart (adjusted p below 0.05), from the largest gain to the largest loss; then
    the other judged ones by the size of their change; last those of fewer than `LEAST_ROWS` rows.
    Ties go to the slice with more rows. `examples` are the test rows. Raises ValueError where the
    models labelled different rows, KeyError where a row has no text.
    """
    matched = pairs(base, tuned)
    texts = {example.index: example for example in examples}
    rows = {pair.index: texts[pair.index] for pair in matched}
    kinds = [
        *_by_gold_label(matched, label_names),
        *_by_length(rows),
        *_by_overlap_and_tag(rows),
    ]
    found = [
        _slice(kind, [pair for pair in matched if pair.index in kind.indices])
        for kind in kinds
        if kind.indices
    ]
    return tuple(sorted(_tested(found), key=_rank))


def slices_sentence(slices: Sequence[Slice]) -> str:
    """Which slices tuning made worse beyond what chance explains, with the figures."""
    judged = [found for found in slices if found.judged]
    if not judged:
        return f"No slice has the {LEAST_ROWS} rows that it takes to judge it."
    worse = [found for found in judged if found.told_apart and found.change < 0]
    looked_at = f"{plural(len(judged), 'slice')} looked at"
    test = "exact McNemar tests, Holm-adjusted over all of them"
    if not worse:
        fell = sum(found.change < 0 for found in judged)
        fewer = f"{count(fell) if fell else 'none'} of them {'have' if fell > 1 else 'has'} fewer"
        return (
            f"Tuning made none of the {looked_at} worse beyond what chance explains ({test}; "
            f"{fewer} right rows than before). Small slices could have "
            "got worse without it showing."
        )
    named = [
        f"“{found.name}” ({points(found.change)} on {plural(found.rows, 'row')}, adjusted "
        f"{p_value(found.adjusted_p or 0.0)})"
        for found in worse
    ]
    return (
        f"Tuning made {count(len(worse))} of the {looked_at} worse beyond what chance explains "
        f"({test}): {listed(named)}."
    )


def too_few_sentence(slices: Sequence[Slice]) -> str:
    """Which slices are too small to judge; empty where none is."""
    few = [f"“{found.name}” ({found.rows})" for found in slices if not found.judged]
    return f"With fewer than {LEAST_ROWS} rows, too few to judge: {listed(few)}." if few else ""


def _tested(found: Sequence[Slice]) -> Iterator[Slice]:
    """All slices, those with rows enough tested against all others of them."""
    large = [own for own in found if own.rows >= LEAST_ROWS]
    raw = [mcnemar_p(own.corrected, own.broken) for own in large]
    for own, p, adjusted_p in zip(large, raw, holm(raw), strict=True):
        yield replace(own, p=p, adjusted_p=adjusted_p)
    yield from (own for own in found if own.rows < LEAST_ROWS)


def _slice(kind: _Kind, own: Sequence[Pair]) -> Slice:
    rows = len(own)
    before = sum(pair.base_right for pair in own)
    after = sum(pair.tuned_right for pair in own)
    corrected = sum(pair.tuned_right and not pair.base_right for pair in own)
    broken = sum(pair.base_right and not pair.tuned_right for pair in own)
    return Slice(
        family=kind.family,
        key=kind.key,
        name=kind.name,
        meaning=kind.meaning,
        rows=rows,
        base_correct=before,
        tuned_correct=after,
        corrected=corrected,
        broken=broken,
        base_interval=wilson_interval(before, rows),
        tuned_interval=wilson_interval(after, rows),
        change=(after - before) / rows,
        change_interval=paired_difference_interval(corrected, broken, rows),
        p=None,
        adjusted_p=None,
    )


def _rank(found: Slice) -> tuple[int, float, int]:
    if found.told_apart:
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
    """Thirds of the run by words of premise and hypothesis; none where all are as long."""
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
        ("low", f"{least} or less", low),
        ("middle", f"more than {least} and less than {most}", frozenset(overlap) - low - high),
        ("high", f"{most} or more", high),
    )
    for key, bounds, indices in bands:
        meaning = f"{bounds} of the hypothesis's content words stand in the premise"
        yield _Kind("word overlap", key, f"{key} word overlap", meaning, indices)
    for tag in TAGS:
        if tag.key not in OVERLAP_TAGS:
            indices = frozenset(i for i, found in compared.items() if tag.key in found.tags)
            yield _Kind("tag", tag.key, tag.name, tag.meaning, indices)
