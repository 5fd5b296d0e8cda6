"""What a reader should know before trusting the figures of several trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import stdev

from nlijob.analysis.warnings import HABIT
from nlijob.analysis.wording import count, listed, percent, plural
from nlijob.records.outcome import Finding
from nlijob.records.trials import TrialOutcome, Trials

LARGEST_SPREAD = {2: 31.9, 3: 6.3, 4: 3.7}
"""Trainings -> how many times as large as measured their true standard deviation may be: the upper
end of its 95 % interval, from the chi-square distribution. With more, it is less than 3."""
FEWEST = min(LARGEST_SPREAD)


def trial_warnings(trials: Trials | None, label_names: Sequence[str]) -> Iterable[Finding]:
    """Findings about several trainings; none with one training (None)."""
    if trials is None:
        return
    yield from _directions(trials)
    yield from _far_off(trials)
    yield from _one_label(trials, label_names)
    yield from _few(trials)


def _directions(trials: Trials) -> Iterable[Finding]:
    changes = [one.change.difference for one in trials.trials]
    better, worse = sum(one > 0 for one in changes), sum(one < 0 for one in changes)
    if not better or not worse:
        return
    yield Finding(
        "trainings-differ-in-direction",
        {"better": better, "worse": worse, "helped": trials.helped, "harmed": trials.harmed},
        f"Of {count(len(changes))} trainings, {count(better)} made the model better on the test "
        f"rows ({_beyond_chance(trials.helped)}) and {count(worse)} made it worse "
        f"({_beyond_chance(trials.harmed)}).",
    )


def _beyond_chance(number: int) -> str:
    return f"{count(number) if number else 'none'} beyond chance"


def _far_off(trials: Trials) -> Iterable[Finding]:
    others = [one.accuracy for one in trials.trials if one.name not in trials.far_off]
    if not others:
        return
    for one in trials.trials:
        if one.name in trials.far_off:
            yield Finding(
                "training-far-off",
                {"training": one.name, "accuracy": one.accuracy},
                f"The training {one.name} is far off the others: accuracy {percent(one.accuracy)}, "
                f"while theirs is from {percent(min(others))} to {percent(max(others))}. The mean "
                "includes it.",
            )


def _one_label(trials: Trials, label_names: Sequence[str]) -> Iterable[Finding]:
    """A finding on trainings that answer one label; of the kept one, there is another finding."""
    fallen = [one for one in trials.trials if one.name != trials.kept and _has_habit(one)]
    if fallen:
        labels = {label_names[one.answers.index(max(one.answers))] for one in fallen}
        names = [one.name for one in fallen]
        noun = "training" if len(names) == 1 else "trainings"
        verb = "answers" if len(names) == 1 else "answer"
        yield Finding(
            "training-one-label",
            {"trainings": ", ".join(names), "labels": ", ".join(sorted(labels))},
            f"The {noun} {listed(names)} {verb} {_quoted(labels)} for at least {percent(HABIT, 0)} "
            "of the test rows.",
        )


def _has_habit(one: TrialOutcome) -> bool:
    return bool(one.answers) and max(one.answers) >= HABIT * one.rows


def _quoted(labels: Iterable[str]) -> str:
    names = [f"“{label}”" for label in sorted(labels)]
    return names[0] if len(names) == 1 else f"one label ({listed(names)})"


def _few(trials: Trials) -> Iterable[Finding]:
    number = len(trials.trials)
    if number not in LARGEST_SPREAD:
        return
    spread = stdev(one.accuracy for one in trials.trials)
    times = LARGEST_SPREAD[number]
    often = "many times" if number == FEWEST else f"up to {times:g} times"
    measured = (
        f"their accuracies have a standard deviation of {percent(spread).removesuffix(' %')} "
        f"points, and the true one may be {often} as large"
        if spread
        else "that their accuracies are the same does not show that those of others are"
    )
    yield Finding(
        "few-trainings",
        {"trainings": number, "standard_deviation": spread, "largest_ratio": times},
        f"{plural(number, 'training')} hardly tell how much trainings differ: {measured}. The "
        "interval of the mean allows for this; more trainings would narrow it.",
    )
