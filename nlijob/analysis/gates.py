"""Whether the outcome meets the gates of the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from nlijob.analysis.wording import MOST_DECIMALS, count, percent, points
from nlijob.config import ReportConfig
from nlijob.records.intervals import Interval
from nlijob.records.outcome import Finding, Gates, Metrics


def check_gates(asked: ReportConfig, tuned: Metrics, gain: float, gain_interval: Interval) -> Gates:
    """Whether all configured gates are met, with a finding for each that is missed.

    A gate is compared with the figure itself or, with `gate_on = "lower"`, with the lower bound of
    its interval in the table of figures.
    """
    failures = (*_accuracy(asked, tuned), *_gain(asked, gain, gain_interval))
    return Gates(passed=not failures, failures=failures)


def _accuracy(asked: ReportConfig, tuned: Metrics) -> Iterator[Finding]:
    if asked.min_accuracy is None:
        return
    by_bound = asked.gate_on == "lower"
    judged = tuned.accuracy_interval.low if by_bound else tuned.accuracy
    if judged < asked.min_accuracy:
        decimals = _decimals(judged, asked.min_accuracy)
        verb = f"may be as low as {percent(judged, decimals)}," if by_bound else "is"
        yield Finding(
            "min-accuracy",
            {"asked": asked.min_accuracy, "judged": judged, "accuracy": tuned.accuracy},
            f"test accuracy {percent(tuned.accuracy, decimals)} ({count(tuned.correct)} of "
            f"{count(tuned.rows)}) {verb} below the {100 * asked.min_accuracy:g} % asked for",
        )


def _gain(asked: ReportConfig, gain: float, interval: Interval) -> Iterator[Finding]:
    if asked.min_gain is None:
        return
    by_bound = asked.gate_on == "lower"
    judged = interval.low if by_bound else gain
    if judged < asked.min_gain:
        decimals = _decimals(judged, asked.min_gain)
        verb = f"may be as low as {points(judged, decimals)}," if by_bound else "is"
        yield Finding(
            "min-gain",
            {"asked": asked.min_gain, "judged": judged, "gain": gain},
            f"a gain of {points(gain, decimals)} {verb} below the {100 * asked.min_gain:g} points "
            "asked for",
        )


def _decimals(judged: float, limit: float) -> int:
    """Decimals in percent with which a missed gate does not look met; usually those of the page."""
    decimals = 1
    while decimals < MOST_DECIMALS and round(100 * judged, decimals) >= 100 * limit:
        decimals += 1
    return decimals
