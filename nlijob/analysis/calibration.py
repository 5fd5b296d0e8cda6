"""Whether a model is right as often as it says it is.

Expected calibration error (ECE) and reliability bins: Guo et al. (2017), On calibration of modern
neural networks. Brier score over all labels: Brier (1950), Verification of forecasts expressed in
terms of probability. On few rows ECE is above 0 even where nothing is wrong, so it is set against
what a perfectly calibrated model would show on the very same rows (the resampling of Bröcker and
Smith, 2007, Increasing the reliability of reliability diagrams).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.statistics import wilson_interval
from nlijob.analysis.wording import MINUS, percent, plural
from nlijob.records import Calibration, Prediction, ReliabilityBin

Array = NDArray[Any]
BINS = 10
SIMULATIONS = 2_000
SEED = 20_170_806
DRAWS_AT_ONCE = 1_000_000
"""Random numbers held in memory at a time."""
SPECK = 1e-6
"""By how much single-precision arithmetic may carry a probability over an end."""


def calibration(
    predictions: Sequence[Prediction],
    bins: int = BINS,
    simulations: int = SIMULATIONS,
    seed: int = SEED,
) -> Calibration:
    """Calibration of one model on one split's rows, in any order.

    A row's confidence is the probability of the label that was answered. Raises ValueError on no
    rows, or on a probability outside 0 to 1.
    """
    if not predictions:
        raise ValueError("no predictions to measure")
    pairs = sorted((p.probabilities[p.predicted], p.predicted == p.label) for p in predictions)
    confidence, right = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if confidence[0] < -SPECK or confidence[-1] > 1 + SPECK:
        raise ValueError("a probability lies outside 0 to 1")
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
    """Mean squared distance of the probabilities from the truth, summed over labels (0 to 2)."""
    total = math.fsum(
        (probability - (label == prediction.label)) ** 2
        for prediction in predictions
        for label, probability in enumerate(prediction.probabilities)
    )
    return total / len(predictions)


def calibration_sentence(model: str, found: Calibration) -> str:
    """What the ECE says about one model ("base", "tuned"), no stronger than the rows allow."""
    gap = found.mean_confidence - found.accuracy
    figures = (
        f"The {model} model gave its answers a mean probability of "
        f"{percent(found.mean_confidence)} and was right for {percent(found.accuracy)} of "
        f"{plural(found.rows, 'row')}. Its expected calibration error is {_points(found.ece)}"
    )
    expected = (
        f"a perfectly calibrated model would show {_points(found.ece_if_calibrated)} on average "
        f"and at most {_points(found.ece_if_calibrated_high)} in 95 % of cases on these rows"
    )
    if not found.told_apart:
        return f"{figures}; {expected}, so it cannot be told from a perfectly calibrated one."
    direction = "more sure than it is right" if gap > 0 else "less sure than it is right"
    where = f", on the whole {direction} ({_signed(gap)})" if abs(gap) >= found.ece / 2 else ""
    return f"{figures}; {expected}. So its probabilities do not fit how often it is right{where}."


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
    """ECE of each simulation in which every answer is right as often as its confidence says."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, errors = len(confidence), []
    at_once = max(1, DRAWS_AT_ONCE // rows)
    for start in range(0, simulations, at_once):
        size = min(at_once, simulations - start)
        right = random.random((size, rows)) < confidence
        errors.append(_ece(confidence, right, place, bins))
    return np.concatenate(errors)


def _ece(confidence: Array, right: Array, place: Array, bins: int) -> Array:
    """ECE of each line of right[simulation, row]; `place` (the rows' bins) is in rising order."""
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    surplus = np.add.reduceat(right - confidence, starts, axis=1)
    return np.asarray(np.abs(surplus).sum(1) / len(confidence))


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _signed(gap: float) -> str:
    return f"{'+' if gap > 0 else MINUS}{abs(100 * gap):.1f} points"
