"""Whether the outcome meets the gates of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nlijob.analysis.wording import MOST_DECIMALS, count, percent, points
from nlijob.config import ReportConfig
from nlijob.records.intervals import Interval
from nlijob.records.outcome import Finding, Gates, Metrics
from nlijob.records.trials import Expected, Trials


@dataclass(frozen=True)
class _Judged:
    """A figure that a gate is compared with."""

    value: float
    interval: Interval
    name: str
    """What stands before the figure."""
    note: str = ""
    """What stands after it."""
    more: dict[str, int | float | str] = field(default_factory=dict)
    """Further figures of the finding."""


def check_gates(
    asked: ReportConfig,
    tuned: Metrics,
    gain: float,
    gain_interval: Interval,
    trials: Trials | None = None,
) -> Gates:
    """Whether all configured gates are met, with a finding for each that is missed.

    A gate is compared with the figure itself or, with `gate_on = "lower"`, with the lower bound of
    its interval in the table of figures. If there are several `trials`, the figures are the means
    over them.
    """
    if trials is None:
        note = f" ({count(tuned.correct)} of {count(tuned.rows)})"
        accuracy = _Judged(tuned.accuracy, tuned.accuracy_interval, "test accuracy", note)
        improvement = _Judged(gain, gain_interval, "a gain of")
    else:
        number = len(trials.trials)
        accuracy = _mean(trials.accuracy, "mean test accuracy", number)
        improvement = _mean(trials.gain, "a mean gain of", number)
    failures = (*_accuracy(asked, accuracy), *_gain(asked, improvement))
    return Gates(passed=not failures, failures=failures)


def _mean(figure: Expected, name: str, trainings: int) -> _Judged:
    note = f" over {count(trainings)} trainings"
    return _Judged(figure.mean, figure.interval, name, note, {"trainings": trainings})


def _accuracy(asked: ReportConfig, found: _Judged) -> Iterator[Finding]:
    if asked.min_accuracy is None:
        return
    by_bound = asked.gate_on == "lower"
    judged = found.interval.low if by_bound else found.value
    if judged < asked.min_accuracy:
        decimals = _decimals(judged, asked.min_accuracy)
        verb = f"may be as low as {percent(judged, decimals)}," if by_bound else "is"
        figures = {"asked": asked.min_accuracy, "judged": judged, "accuracy": found.value}
        yield Finding(
            "min-accuracy",
            {**figures, **found.more},
            f"{found.name} {percent(found.value, decimals)}{found.note} {verb} below the "
            f"{100 * asked.min_accuracy:g} % asked for",
        )


def _gain(asked: ReportConfig, found: _Judged) -> Iterator[Finding]:
    if asked.min_gain is None:
        return
    by_bound = asked.gate_on == "lower"
    judged = found.interval.low if by_bound else found.value
    if judged < asked.min_gain:
        decimals = _decimals(judged, asked.min_gain)
        verb = f"may be as low as {points(judged, decimals)}," if by_bound else "is"
        figures = {"asked": asked.min_gain, "judged": judged, "gain": found.value}
        yield Finding(
            "min-gain",
            {**figures, **found.more},
            f"{found.name} {points(found.value, decimals)}{found.note} {verb} below the "
            f"{100 * asked.min_gain:g} points asked for",
        )


def _decimals(judged: float, limit: float) -> int:
    """Decimals in percent with which a missed gate does not look met; usually those of the page."""
    decimals = 1
    while decimals < MOST_DECIMALS and round(100 * judged, decimals) >= 100 * limit:
        decimals += 1
    return decimals
