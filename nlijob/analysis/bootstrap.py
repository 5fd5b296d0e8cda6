"""Bootstrap intervals for balanced accuracy and macro F1, which have no closed formula.

Percentile intervals: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
Both models are measured on the same resampled rows, so that their change has an interval too. Where
rows share premises, premises are resampled with all their rows: Davison and Hinkley (1997),
Bootstrap Methods and their Application, section 3.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.cases import pairs
from nlijob.analysis.clustered import premises_as_units
from nlijob.analysis.premises import Premises, premise_numbers
from nlijob.records.intervals import Interval
from nlijob.records.job import Prediction
from nlijob.records.outcome import BootstrapIntervals, ChangeIntervals

Array = NDArray[Any]
RESAMPLES = 10_000
PREMISE_RESAMPLES = 4_000
"""Fewer, as a resample of premises takes ten times as long; a bound moves by about 1 % of the width
of its interval with another seed."""
SEED = 20_150_901
PSEUDO_ROWS = 2.0
"""Rows added to the table before resampling, spread evenly over its possible cells."""
CELLS_AT_ONCE = 2_000_000
"""Most cells of resampled tables in memory at a time."""


def bootstrap_intervals(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    labels: int,
    premises: Premises | None = None,
    resamples: int | None = None,
    seed: int = SEED,
) -> BootstrapIntervals:
    """Percentile bootstrap intervals from both models' predictions on the test rows.

    Resampling rows is the same as a multinomial draw of the table of (gold label, base answer,
    tuned answer), so tables are drawn instead of rows. Two pseudo-rows are first spread evenly over
    the table, as in the interval of Agresti and Min for the paired difference; without them, a
    model that is correct on every row would get an interval of zero width. Cells of labels that
    have no row, or that no model answered, stay empty. If rows share `premises`, the tables of
    premises are drawn, and the pseudo-rows make pseudo-premises of the mean size. `labels` is the
    number of labels; the number of `resamples` is chosen if it is not given. The seed is fixed, so
    the same predictions in any order give the same figures. (NumPy keeps the bit
    stream of PCG64 between versions, but not the draws made from it; a change would move a bound
    by about 1 % of the width.) Raises ValueError if there are no rows or if the models labelled
    different rows.
    """
    table = paired_table(base, tuned, labels)
    units = premises_as_units(premise_numbers(tuned, premises))
    resamples = resamples or (PREMISE_RESAMPLES if units else RESAMPLES)
    draws = (
        _row_draws(table, resamples, seed)
        if units is None
        else _premise_draws(_premise_tables(base, tuned, labels, premises), table, resamples, seed)
    )
    figures = np.concatenate([_figures(drawn) for drawn in draws])
    before, after = figures[:, 0], figures[:, 1]
    return BootstrapIntervals(
        rows=int(table.sum()),
        resamples=resamples,
        balanced_accuracy=_intervals(before[:, 0], after[:, 0], table),
        macro_f1=_intervals(before[:, 1], after[:, 1], table),
        premises=units,
    )


def paired_table(
    base: Sequence[Prediction], tuned: Sequence[Prediction], labels: int
) -> NDArray[np.int64]:
    """Numbers of test rows by gold label, base answer and tuned answer, [labels, labels, labels].

    Raises ValueError if there are no rows or if the models labelled different rows.
    """
    table = np.zeros((labels, labels, labels), dtype=np.int64)
    for pair in pairs(base, tuned):
        table[pair.base.label, pair.base.predicted, pair.tuned.predicted] += 1
    if not table.any():
        raise ValueError("no test rows to resample")
    return table


def balanced_accuracy(confusion: Array) -> Array:
    """Mean recall over the labels that have rows, [...]; `confusion` is [..., gold, predicted]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _mean_ratio(hits, confusion.sum(-1))


def macro_f1(confusion: Array) -> Array:
    """Mean F1 over the labels that have rows or were predicted, [...]; `confusion` as above."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _mean_ratio(2 * hits, confusion.sum(-1) + confusion.sum(-2))


def _mean_ratio(parts: Array, wholes: Array) -> Array:
    """Mean of parts / wholes over the last axis, skipping wholes that are zero."""
    ratios = np.divide(parts, wholes, out=np.zeros(wholes.shape), where=wholes > 0)
    return np.asarray(ratios.sum(-1) / (wholes > 0).sum(-1))


def _figures(tables: Array) -> Array:
    """Figures of tables, [resamples, 2, 2]: (base, tuned) by (balanced accuracy, macro F1)."""
    confusions = np.stack([tables.sum(-1), tables.sum(-2)], axis=1)
    return np.stack([balanced_accuracy(confusions), macro_f1(confusions)], axis=-1)


def _row_draws(table: NDArray[np.int64], resamples: int, seed: int) -> Iterator[Array]:
    """Tables of resampled rows, [resamples, *table.shape] in chunks."""
    random = np.random.Generator(np.random.PCG64(seed))
    shares = _smoothed(table).ravel()
    for size in _chunks(resamples, table.size):
        drawn = random.multinomial(int(table.sum()), shares, size=size)
        yield drawn.reshape(size, *table.shape)


def _premise_draws(
    kinds: tuple[Array, Array], table: NDArray[np.int64], resamples: int, seed: int
) -> Iterator[Array]:
    """Tables of resampled premises, [resamples, *table.shape] in chunks.

    `kinds` are the different tables of premises, [kinds, cells], and how often each occurs.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    tables, often = kinds
    possible = np.flatnonzero(_possible(table))
    premises = int(often.sum())
    pseudo = np.zeros((len(possible), table.size))
    size = table.sum() / premises
    pseudo[np.arange(len(possible)), possible] = size
    weights = np.concatenate([often, np.full(len(possible), PSEUDO_ROWS / size / len(possible))])
    tables = np.concatenate([tables, pseudo])
    for size in _chunks(resamples, max(table.size, len(tables))):
        drawn = random.multinomial(premises, weights / weights.sum(), size=size)
        yield (drawn @ tables).reshape(size, *table.shape)


def _premise_tables(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    labels: int,
    premises: Premises | None,
) -> tuple[Array, Array]:
    """The different tables of premises, [kinds, labels ** 3], and how often each occurs."""
    matched = pairs(base, tuned)
    _, place = np.unique(
        premise_numbers((pair.tuned for pair in matched), premises), return_inverse=True
    )
    cells = [
        (pair.base.label * labels + pair.base.predicted) * labels + pair.tuned.predicted
        for pair in matched
    ]
    tables = np.zeros((int(place.max()) + 1, labels**3))
    np.add.at(tables, (place, np.array(cells)), 1)
    kinds, often = np.unique(tables, axis=0, return_counts=True)
    return kinds, often


def _chunks(resamples: int, cells: int) -> Iterator[int]:
    """Sizes of the chunks in which so many resamples of so many cells are drawn."""
    at_once = max(1, CELLS_AT_ONCE // cells)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def _possible(table: NDArray[np.int64]) -> Array:
    """Which cells a row can be in: labels without rows and without answers have none."""
    gold = table.sum((1, 2)) > 0
    given = gold | (table.sum((0, 1)) > 0) | (table.sum((0, 2)) > 0)
    return np.asarray(gold[:, None, None] & given[None, :, None] & given[None, None, :])


def _smoothed(table: NDArray[np.int64]) -> Array:
    """Shares of all cells, after adding the pseudo-rows to the possible cells."""
    possible = _possible(table)
    smoothed = table + PSEUDO_ROWS * possible / possible.sum()
    return np.asarray(smoothed / smoothed.sum())


def _intervals(before: Array, after: Array, table: NDArray[np.int64]) -> ChangeIntervals:
    if np.count_nonzero(_smoothed(table)) == 1:
        return ChangeIntervals(None, None, None)
    return ChangeIntervals(_percentile(before), _percentile(after), _percentile(after - before))


def _percentile(values: Array) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
