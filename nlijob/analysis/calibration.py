"""Calibration: whether a model's confidence matches its accuracy.

Expected calibration error (ECE) and reliability bins: Guo et al. (2017), On calibration of modern
neural networks. Brier score over all labels: Brier (1950), Verification of forecasts expressed in
terms of probability. On few rows the ECE is above 0 even for a calibrated model, so it is compared
with the ECE that a perfectly calibrated model would have on the same rows (resampling as in Bröcker
and Smith, 2007, Increasing the reliability of reliability diagrams).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.statistics import wilson_interval
from nlijob.analysis.wording import percent, plural, signed
from nlijob.records.job import Prediction
from nlijob.records.outcome import Calibration, ReliabilityBin

Array = NDArray[Any]
BINS = 10
SIMULATIONS = 2_000
SEED = 20_170_806
DRAWS_AT_ONCE = 1_000_000
"""Most random numbers in memory at a time."""
SPECK = 1e-6
"""Largest rounding error by which a single-precision probability may leave 0 to 1."""


def calibration(
    predictions: Sequence[Prediction],
    bins: int = BINS,
    simulations: int = SIMULATIONS,
    seed: int = SEED,
) -> Calibration:
    """Calibration of one model on one split's rows, in any order.

    The confidence of a row is the probability of the predicted label. Raises ValueError if there
    are no rows, or if a probability is outside 0 to 1.
    """
    if not predictions:
        raise ValueError("no predictions to measure")
    pairs = sorted((p.confidence, p.is_right) for p in predictions)
    confidence, right = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if confidence[0] < -SPECK or confidence[-1] > 1 + SPECK:
        raise ValueError("a probability is outside 0 to 1")
    confidence = confidence.clip(0.0, 1.0)
    rows, edges = len(confidence), np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    if_calibrated = _ece_if_calibrated(confidence, place, bins, simulations, seed)
    return Calibration(
        rows=rows,
        mean_confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        bins=tuple(
            _bin(edges[b], edges[b + 1], confidence[place == b], right[place == b])
            for b in range(bins)
        ),
        ece=float(_ece(confidence, right[None], place, bins)[0]),
        ece_if_calibrated=float(if_calibrated.mean()),
        ece_if_calibrated_high=float(np.quantile(if_calibrated, 0.95)),
        brier=brier_score(predictions),
    )


def brier_score(predictions: Sequence[Prediction]) -> float:
    """Squared error of the probabilities, summed over labels, mean over rows (0 to 2)."""
    total = math.fsum(
        (probability - (label == prediction.label)) ** 2
        for prediction in predictions
        for label, probability in enumerate(prediction.probabilities)
    )
    return total / len(predictions)


def calibration_sentence(model: str, found: Calibration) -> str:
    """What the ECE shows about one model ("base" or "tuned"), given the number of rows."""
    gap = found.mean_confidence - found.accuracy
    signed_gap = f"{signed(100 * gap, 1)} points"
    figures = (
        f"The {model} model gave its answers a mean probability of "
        f"{percent(found.mean_confidence)} and was correct on {percent(found.accuracy)} of "
        f"{plural(found.rows, 'row')}. Its expected calibration error is {_points(found.ece)}"
    )
    expected = (
        "on these rows, a perfectly calibrated model would have "
        f"{_points(found.ece_if_calibrated)} on average and at most "
        f"{_points(found.ece_if_calibrated_high)} in 95 % of cases"
    )
    if not found.is_significant:
        return f"{figures}; {expected}, so it is not distinguishable from a calibrated model."
    direction = "overconfident" if gap > 0 else "underconfident"
    where = f": overall, it is {direction} ({signed_gap})" if abs(gap) >= found.ece / 2 else ""
    return f"{figures}; {expected}. Its probabilities do not match its accuracy{where}."


def _bin(low: float, high: float, confidence: Array, right: Array) -> ReliabilityBin:
    rows, correct = len(confidence), int(right.sum())
    return ReliabilityBin(
        low=float(low),
        high=float(high),
        rows=rows,
        correct=correct,
        mean_confidence=float(confidence.mean()) if rows else None,
        accuracy=correct / rows if rows else None,
        accuracy_interval=wilson_interval(correct, rows) if rows else None,
    )


def _ece_if_calibrated(
    confidence: Array, place: Array, bins: int, simulations: int, seed: int
) -> Array:
    """ECE of each simulation of a perfectly calibrated model, [simulations]."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, errors = len(confidence), []
    at_once = max(1, DRAWS_AT_ONCE // rows)
    for start in range(0, simulations, at_once):
        size = min(at_once, simulations - start)
        right = random.random((size, rows)) < confidence
        errors.append(_ece(confidence, right, place, bins))
    return np.concatenate(errors)


def _ece(confidence: Array, right: Array, place: Array, bins: int) -> Array:
    """ECE of each simulation; `right` is [simulations, rows], `place` the rows' bins, ascending."""
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    surplus = np.add.reduceat(right - confidence, starts, axis=1)
    return np.asarray(np.abs(surplus).sum(1) / len(confidence))


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
