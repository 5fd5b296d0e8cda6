"""Bootstrap intervals for balanced accuracy and macro F1, which have no closed formula.

Percentile intervals: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
Both models are measured on the same resampled rows, so that their change has an interval too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.cases import pairs
from nlijob.records.job import Prediction
from nlijob.records.outcome import BootstrapIntervals, ChangeIntervals, Interval

Array = NDArray[Any]
RESAMPLES = 10_000
SEED = 20_150_901
PSEUDO_ROWS = 2.0
"""Rows added to the table before resampling, spread evenly over its possible cells."""
CELLS_AT_ONCE = 2_000_000
"""Most cells of resampled tables in memory at a time."""


def bootstrap_intervals(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    labels: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> BootstrapIntervals:
    """Percentile bootstrap intervals from both models' predictions on the test rows.

    Resampling rows is the same as a multinomial draw of the table of (gold label, base answer,
    tuned answer), so tables are drawn instead of rows. Two pseudo-rows are first spread evenly over
    the table, as in the interval of Agresti and Min for the paired difference; without them, a
    model that is correct on every row would get an interval of zero width. Cells of labels that
    have no row, or that no model answered, stay empty. `labels` is the number of labels. The seed
    is fixed, so the same predictions in any order give the same figures. (NumPy keeps the bit
    stream of PCG64 between versions, but not the draws made from it; a change would move a bound
    by about 1 % of the width.) Raises ValueError if there are no rows or if the models labelled
    different rows.
    """
    table = paired_table(base, tuned, labels)
    figures = np.concatenate(_resampled_figures(table, resamples, seed))
    before, after = figures[:, 0], figures[:, 1]
    return BootstrapIntervals(
        rows=int(table.sum()),
        resamples=resamples,
        balanced_accuracy=_intervals(before[:, 0], after[:, 0], table),
        macro_f1=_intervals(before[:, 1], after[:, 1], table),
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


def _resampled_figures(table: NDArray[np.int64], resamples: int, seed: int) -> list[Array]:
    """Chunks of figures, [resamples, 2, 2]: (base, tuned) by (balanced accuracy, macro F1)."""
    random = np.random.Generator(np.random.PCG64(seed))
    shares = _smoothed(table).ravel()
    rows, at_once = int(table.sum()), max(1, CELLS_AT_ONCE // table.size)
    chunks = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = random.multinomial(rows, shares, size=size).reshape(size, *table.shape)
        confusions = np.stack([drawn.sum(-1), drawn.sum(-2)], axis=1)
        chunks.append(np.stack([balanced_accuracy(confusions), macro_f1(confusions)], axis=-1))
    return chunks


def _smoothed(table: NDArray[np.int64]) -> Array:
    """Shares of all cells, after adding the pseudo-rows to the possible cells."""
    gold = table.sum((1, 2)) > 0
    given = gold | (table.sum((0, 1)) > 0) | (table.sum((0, 2)) > 0)
    possible = gold[:, None, None] & given[None, :, None] & given[None, None, :]
    smoothed = table + PSEUDO_ROWS * possible / possible.sum()
    return np.asarray(smoothed / smoothed.sum())


def _intervals(before: Array, after: Array, table: NDArray[np.int64]) -> ChangeIntervals:
    if np.count_nonzero(_smoothed(table)) == 1:
        return ChangeIntervals(None, None, None)
    return ChangeIntervals(_percentile(before), _percentile(after), _percentile(after - before))


def _percentile(values: Array) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
