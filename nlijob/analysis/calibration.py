"""Calibration: whether a model's confidence matches its accuracy.

Expected calibration error (ECE) and reliability bins: Guo et al. (2017), On calibration of modern
neural networks. Brier score over all labels: Brier (1950), Verification of forecasts expressed in
terms of probability. On few rows the ECE is above 0 even for a calibrated model, so it is compared
with the ECE that a perfectly calibrated model would have on the same rows (resampling as in Bröcker
and Smith, 2007, Increasing the reliability of reliability diagrams). Where rows share premises, the
simulated answers to one premise are as correlated as the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.clustered import accuracy_interval, premises_as_units
from nlijob.analysis.premises import Premises, premise_numbers
from nlijob.analysis.wording import percent, plural, points
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
    premises: Premises | None = None,
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
    numbers = premise_numbers(predictions, premises)
    rows_in_order = sorted(
        (p.confidence, p.is_right, number) for p, number in zip(predictions, numbers, strict=True)
    )
    columns = zip(*rows_in_order, strict=True)
    confidence, right, premise = (np.array(column, dtype=float) for column in columns)
    if confidence[0] < -SPECK or confidence[-1] > 1 + SPECK:
        raise ValueError("a probability is outside 0 to 1")
    confidence = confidence.clip(0.0, 1.0)
    rows, edges = len(confidence), np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    correlation = _correlation(right, premise, place, bins)
    simulated = _answers_if_calibrated(confidence, premise, correlation, simulations, seed)
    if_calibrated = np.concatenate([_ece(confidence, own, place, bins) for own in simulated])
    return Calibration(
        rows=rows,
        mean_confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        bins=tuple(
            _bin(
                edges[b],
                edges[b + 1],
                confidence[place == b],
                right[place == b],
                premise[place == b],
            )
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
    where = f": overall, it is {direction} ({points(gap)})" if abs(gap) >= found.ece / 2 else ""
    return f"{figures}; {expected}. Its probabilities do not match its accuracy{where}."


def _bin(
    low: float, high: float, confidence: Array, right: Array, premise: Array
) -> ReliabilityBin:
    rows, correct = len(confidence), int(right.sum())
    bounds = accuracy_interval(right.astype(bool).tolist(), premise.tolist()) if rows else None
    return ReliabilityBin(
        low=float(low),
        high=float(high),
        rows=rows,
        correct=correct,
        mean_confidence=float(confidence.mean()) if rows else None,
        accuracy=correct / rows if rows else None,
        accuracy_interval=bounds,
    )


def _correlation(right: Array, premise: Array, place: Array, bins: int) -> float:
    """Correlation of correct answers to the same premise, beyond their bins' accuracies (0 to 1).

    A moment estimate over all pairs of rows with the same premise; 0 where no premise repeats.
    """
    if premises_as_units(premise.tolist()) is None:
        return 0.0
    rows = np.bincount(place, minlength=bins)
    accuracy = np.bincount(place, weights=right, minlength=bins) / np.maximum(rows, 1)
    left, spread = right - accuracy[place], np.sqrt(accuracy * (1 - accuracy))[place]
    together, possible = (_over_pairs(values, premise) for values in (left, spread))
    return min(1.0, max(0.0, together / possible)) if possible else 0.0


def _over_pairs(values: Array, premise: Array) -> float:
    """Sum of the products of the values over all pairs of rows with the same premise."""
    _, group = np.unique(premise, return_inverse=True)
    sums = np.bincount(group, weights=values)
    return float((sums**2).sum() - (values**2).sum()) / 2


def _answers_if_calibrated(
    confidence: Array, premise: Array, correlation: float, simulations: int, seed: int
) -> Iterator[Array]:
    """Which answers of a perfectly calibrated model are right, [simulations, rows] in chunks."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows = len(confidence)
    _, group = np.unique(premise, return_inverse=True)
    at_once = max(1, DRAWS_AT_ONCE // rows)
    for start in range(0, simulations, at_once):
        size = min(at_once, simulations - start)
        luck = random.random((size, rows))
        if correlation:
            # Two rows share their luck with a chance of `correlation`.
            shares = random.random((size, rows), dtype=np.float32) < math.sqrt(correlation)
            shared = random.random((size, int(group.max()) + 1), dtype=np.float32)
            luck = np.where(shares, shared[:, group], luck)
        yield luck < confidence


def _ece(confidence: Array, right: Array, place: Array, bins: int) -> Array:
    """ECE of each simulation; `right` is [simulations, rows], `place` the rows' bins, ascending."""
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    surplus = np.add.reduceat(right - confidence, starts, axis=1)
    return np.asarray(np.abs(surplus).sum(1) / len(confidence))


def _points(share: float) -> str:
    return points(share).removeprefix("+")
