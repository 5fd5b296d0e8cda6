"""Results of a run with several trainings, made up around one synthetic run.

The training whose adapter is kept is the run's own. The others are made from it: some of its
answers are turned, and its validation scores are lowered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev

from nlijob.analysis.cases import build_cases, count_right, pairs
from nlijob.analysis.clustered import paired_difference
from nlijob.analysis.selection import select
from nlijob.analysis.statistics import wilson_interval
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.job import EpochResult, Example, Generation, Occlusion, Prediction, of_split
from nlijob.records.outcome import Results
from nlijob.records.serialization import read_all
from nlijob.records.trials import (
    Ensemble,
    Expected,
    RowsAcross,
    TrialOutcome,
    Trials,
    VarianceShares,
)
from nlijob.rundir import RunDir

SEEDS = (42, 43, 44)
KEPT = 1
"""Position of the training whose adapter is kept."""
TURNED = 0.12
"""Share of the rows that another training labels otherwise."""


def with_trainings(results: Results, run: RunDir, seeds: Sequence[int] = SEEDS) -> Results:
    """The results of the run with these seeds, of which the second is kept."""
    base = of_split(read_all(Prediction, run.baseline_predictions), "test")
    tuned = of_split(read_all(Prediction, run.evaluate_predictions), "test")
    trainings = [
        _training(tuned, results.epochs, seed, is_kept=position == KEPT)
        for position, seed in enumerate(seeds)
    ]
    train = replace(results.run.config.train, seed=seeds[0], seeds=tuple(seeds))
    config = replace(results.run.config, train=train)
    cases = build_cases(
        base,
        tuned,
        read_all(Example, run.subset("test")),
        read_all(Generation, run.generations),
        read_all(Occlusion, run.occlusion),
        results.manifest.label_names,
        config.eval.cases,
        count_right(one.rows for one in trainings),
    )
    trials = _together(base, trainings)
    return replace(results, run=replace(results.run, config=config), trials=trials, cases=cases)


@dataclass(frozen=True)
class _Training:
    seed: int
    epochs: tuple[EpochResult, ...]
    rows: tuple[Prediction, ...]


def _training(
    tuned: Sequence[Prediction], epochs: Sequence[EpochResult], seed: int, is_kept: bool
) -> _Training:
    if is_kept:
        return _Training(seed, tuple(epochs), tuple(tuned))
    choose = random.Random(seed)
    rows = tuple(_turned(row, choose) if choose.random() < TURNED else row for row in tuned)
    return _Training(seed, tuple(_lowered(epoch, choose) for epoch in epochs), rows)


def _turned(row: Prediction, choose: random.Random) -> Prediction:
    return replace(
        row, predicted=choose.choice([label for label in range(3) if label != row.predicted])
    )


def _lowered(epoch: EpochResult, choose: random.Random) -> EpochResult:
    score = epoch.validation
    correct = max(0, score.correct - choose.randint(1, 1 + score.rows // 25))
    return replace(
        epoch, validation=replace(score, correct=correct, loss=score.loss * choose.uniform(1, 1.2))
    )


def _together(base: Sequence[Prediction], trainings: Sequence[_Training]) -> Trials:
    outcomes = tuple(_outcome(base, one) for one in trainings)
    kept, count, rows = trainings[KEPT], len(trainings), len(base)
    base_accuracy = fmean(row.is_right for row in base)
    right = count_right(one.rows for one in trainings)
    counts = tuple(list(right.values()).count(number) for number in range(count + 1))
    base_right = {row.index for row in base if row.is_right}
    accuracies = [one.accuracy for one in outcomes]
    return Trials(
        trials=outcomes,
        kept=f"seed-{kept.seed}",
        accuracy=_expected(accuracies, rows),
        gain=_expected([accuracy - base_accuracy for accuracy in accuracies], rows),
        helped=sum(_is_beyond_chance(one.change, 1) for one in outcomes),
        harmed=sum(_is_beyond_chance(one.change, -1) for one in outcomes),
        variance=VarianceShares(0.55, 0.35, 0.10, 0.052, 0.041, 0.045),
        rows=RowsAcross(
            in_all=counts[-1],
            in_some=sum(counts[1:-1]),
            in_none=counts[0],
            counts=counts,
            corrected_in_all=sum(right[i] == count for i in right if i not in base_right),
            broken_in_all=sum(right[i] == 0 for i in base_right),
            disagreement=fmean(
                fmean(a.predicted != b.predicted for a, b in zip(one.rows, other.rows, strict=True))
                for one, other in combinations(trainings, 2)
            ),
        ),
        ensemble=_ensemble(kept, right, count),
    )


def _outcome(base: Sequence[Prediction], training: _Training) -> TrialOutcome:
    correct, rows = sum(row.is_right for row in training.rows), len(training.rows)
    return TrialOutcome(
        name=f"seed-{training.seed}",
        seed=training.seed,
        epochs=training.epochs,
        selection=select(training.epochs),
        rows=rows,
        correct=correct,
        accuracy=correct / rows,
        accuracy_interval=wilson_interval(correct, rows),
        loss=fmean(row.loss for row in training.rows),
        change=_change(training.rows, [pair.base.is_right for pair in pairs(base, training.rows)]),
    )


def _ensemble(kept: _Training, right: dict[int, int], count: int) -> Ensemble:
    voted = [2 * right[row.index] > count for row in kept.rows]
    over = paired_difference(voted, [row.is_right for row in kept.rows], list(range(len(voted))))
    interval = wilson_interval(sum(voted), len(voted))
    return Ensemble(len(voted), sum(voted), fmean(voted), interval, over)


def _change(rows: Sequence[Prediction], base_right: Sequence[bool]) -> PairedDifference:
    return paired_difference([row.is_right for row in rows], base_right, list(range(len(rows))))


def _is_beyond_chance(change: PairedDifference, sign: int) -> bool:
    return change.mcnemar_p < 0.05 and sign * change.difference > 0


def _expected(figures: Sequence[float], rows: int) -> Expected:
    mean, spread = fmean(figures), stdev(figures)
    of_rows = 0.25 / rows
    return Expected(
        mean,
        _around(mean, (spread**2 / len(figures) + of_rows) ** 0.5),
        _around(mean, (spread**2 + of_rows) ** 0.5) if len(figures) > 2 else None,
        min(figures),
        max(figures),
    )


def _around(mean: float, error: float) -> Interval:
    return Interval(mean - 2 * error, min(1.0, mean + 2 * error))
