"""What the first screen says about the number of trainings: the verdict on several, and its scope.

With one training the verdict is about its adapter. With several it is about the recipe: the mean
over all of them.
"""

from __future__ import annotations

from nlijob.analysis.warnings import habitual_label
from nlijob.analysis.wording import (
    count,
    interval,
    listed,
    mcnemar_name,
    percent,
    plural,
    points,
    points_interval,
    which,
    with_interval,
)
from nlijob.config import seeds_of
from nlijob.records.outcome import SIGNIFICANT, Results
from nlijob.records.trials import TrialOutcome, Trials

MORE_SEEDS = 5
"""Trainings that the page of a single training advises."""


def kept_training(trials: Trials) -> TrialOutcome:
    """The training whose adapter is kept."""
    return next(one for one in trials.trials if one.name == trials.kept)


def holds_sentence(results: Results) -> str:
    """For what the verdict holds: how many trainings, and which rows."""
    number, trials = results.tuned.rows, results.trials
    rows = which(number, "this one test row", f"these {count(number)} test rows")
    if trials is None:
        (seed, *_) = seeds_of(results.run.config.train)
        return f"This holds for one training (seed {seed}), on rows like {rows}."
    trainings = plural(len(trials.trials), "training")
    return (
        f"This holds for trainings that differ from these {trainings} in their seed alone, on rows "
        f"like {rows}."
    )


def scope_sentence(results: Results) -> str:
    """For what the figures below the first screen hold: one training, or the one that is kept."""
    trials = results.trials
    if trials is None:
        return (
            f"What another training would bring is not known. With --seeds {MORE_SEEDS} a run has "
            f"{MORE_SEEDS} trainings and shows how far they differ."
        )
    kept = kept_training(trials)
    return (
        f"The adapter that is kept is that of {kept.name}: its validation accuracy is the best of "
        f"the {len(trials.trials)} ({percent(kept.selection.validation_accuracy)}"
        f"{_ties(trials, kept)}). Test rows play no part in this choice. Its own test accuracy is "
        f"{with_interval(kept.accuracy, kept.accuracy_interval)}."
    )


def _ties(trials: Trials, kept: TrialOutcome) -> str:
    """The trainings that have the kept one's validation accuracy too; "" without any."""
    best = kept.selection.validation_accuracy
    others = [one for one in trials.trials if one.name != kept.name]
    tied = [one.name for one in others if one.selection.validation_accuracy == best]
    if not tied:
        return ""
    verb = which(len(tied), "has", "have")
    return f"; {listed(tied)} {verb} the same, and the lower validation loss decides"


def verdict_on_several(results: Results, trials: Trials) -> tuple[str, str]:
    """The result of all trainings in one sentence, and its tone."""
    before, after = percent(results.base.accuracy), percent(trials.accuracy.mean)
    over = f"on average over {plural(len(trials.trials), 'training')}"
    change = f"Test accuracy went from {before} to {after}, {over}, but"
    bounds = trials.gain.interval
    is_clear = bounds.low > 0 or bounds.high < 0
    if is_clear and (habit := habitual_label(results.tuned)):
        rows = f"{count(habit.predicted)} of {plural(results.tuned.rows, 'row')}"
        return f"{change} {trials.kept} answers “{habit.name}” for {rows}.", "unclear"
    if not is_clear:
        return f"{change} the change is not distinguishable from no change.", "unclear"
    if trials.gain.mean > 0:
        return f"Tuning raised test accuracy from {before} to {after}, {over}.", "better"
    return f"Tuning lowered test accuracy from {before} to {after}, {over}.", "worse"


def note_on_several(results: Results, trials: Trials) -> str:
    """The mean gain with its interval, and in how many trainings tuning helped."""
    return (
        f"With {plural(len(trials.trials), 'training')} on {plural(results.tuned.rows, 'test row')}"
        f"{_premises(trials)}, the mean gain is {points(trials.gain.mean)} "
        f"(95 % interval {points_interval(trials.gain.interval)}, for other trainings of this "
        f"recipe on other rows of this kind). {helped_sentence(trials)}"
    )


def helped_sentence(trials: Trials) -> str:
    """In how many trainings tuning helped, or harmed, beyond chance."""
    harmed = f", and harmed in {count(trials.harmed)}" if trials.harmed else ""
    return (
        f"Tuning helped beyond chance in {count(trials.helped)} of "
        f"{plural(len(trials.trials), 'training')}{harmed} (for each, the "
        f"{mcnemar_name(trials.premises)}; Holm-adjusted p < {SIGNIFICANT:g})."
    )


def range_of_trainings(trials: Trials) -> str:
    """The lowest and the highest test accuracy of a training."""
    low, high = percent(trials.accuracy.lowest), percent(trials.accuracy.highest)
    return f"single trainings {low} to {high}"


def interval_of_mean(trials: Trials) -> str:
    """The interval of the mean accuracy, and for what it holds."""
    return f"95 % interval {interval(trials.accuracy.interval)}, for other trainings too"


def _premises(trials: Trials) -> str:
    return "" if trials.premises is None else f" ({plural(trials.premises, 'premise')})"
