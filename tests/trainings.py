"""Results of a run with several trainings, made up around one synthetic run.

The training whose adapter is kept is the run's own. The others are made from it: some of its
answers are turned, and its validation scores are lowered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from nlijob.analysis.cases import build_cases
from nlijob.analysis.premises import premises_of
from nlijob.analysis.selection import RULE_OF_TRIALS, select
from nlijob.analysis.trials import TrialRows, measure_trials, right_in
from nlijob.config import JobConfig
from nlijob.kept import kept_view
from nlijob.records.job import (
    Choice,
    EpochResult,
    Example,
    Generation,
    Occlusion,
    Prediction,
    of_split,
)
from nlijob.records.outcome import Results
from nlijob.records.serialization import read_all
from nlijob.rundir import RunDir, write_record
from nlijob.trials import trials_of

SEEDS = (42, 43, 44)
KEPT = 1
"""Position of the training whose adapter is kept."""
TURNED = {True: 0.05, False: 0.5}
"""Share of the rows that another training labels otherwise, by whether the kept one is right."""


def with_trainings(results: Results, run: RunDir, seeds: Sequence[int] = SEEDS) -> Results:
    """The results of the run with these seeds, of which the second is kept.

    The run's folder gets what the page reads besides: which training is kept, and its log.
    """
    base = of_split(read_all(Prediction, run.baseline_predictions), "test")
    tuned = of_split(read_all(Prediction, run.evaluate_predictions), "test")
    examples = read_all(Example, run.subset("test"))
    trainings = [
        _training(tuned, results.epochs, seed, is_kept=position == KEPT)
        for position, seed in enumerate(seeds)
    ]
    train = replace(results.run.config.train, seed=seeds[0], seeds=tuple(seeds))
    config = replace(results.run.config, train=train)
    _write_choice(run, config, trainings[KEPT])
    return replace(
        results,
        run=replace(results.run, config=config),
        trials=measure_trials(base, trainings, trainings[KEPT].name, premises_of(examples)),
        cases=build_cases(
            base,
            tuned,
            examples,
            read_all(Generation, run.generations),
            read_all(Occlusion, run.occlusion),
            results.manifest.label_names,
            config.eval.cases,
            right_in(trainings),
        ),
    )


def _write_choice(run: RunDir, config: JobConfig, kept: TrialRows) -> None:
    epoch, accuracy = kept.selection.epoch, kept.selection.validation_accuracy
    count = len(trials_of(config))
    write_record(run.choice, Choice(kept.name, RULE_OF_TRIALS, epoch, accuracy, count))
    log = kept_view(run, config).train_log
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(run.train_log.read_bytes())


def _training(
    tuned: Sequence[Prediction], epochs: Sequence[EpochResult], seed: int, is_kept: bool
) -> TrialRows:
    if not is_kept:
        choose = random.Random(seed)
        tuned = [
            _turned(row, choose) if choose.random() < TURNED[row.is_right] else row for row in tuned
        ]
        epochs = [_lowered(epoch, choose) for epoch in epochs]
    return TrialRows(
        name=f"seed-{seed}",
        seed=seed,
        epochs=tuple(epochs),
        selection=select(epochs),
        predictions=tuned,
        loss=fmean(row.loss for row in tuned),
    )


def _turned(row: Prediction, choose: random.Random) -> Prediction:
    """The row with another answer: two labels have exchanged their probabilities."""
    other = choose.choice([label for label in range(3) if label != row.predicted])
    probabilities = list(row.probabilities)
    probabilities[row.predicted], probabilities[other] = (
        *(probabilities[other], probabilities[row.predicted]),
    )
    return replace(row, predicted=other, probabilities=tuple(probabilities))


def _lowered(epoch: EpochResult, choose: random.Random) -> EpochResult:
    score = epoch.validation
    correct = max(0, score.correct - choose.randint(1, 1 + score.rows // 25))
    return replace(
        epoch, validation=replace(score, correct=correct, loss=score.loss * choose.uniform(1, 1.2))
    )
