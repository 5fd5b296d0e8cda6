"""What was asked of the outcome, and whether it is reached."""

from __future__ import annotations

from nlijob.analysis.wording import count, percent, points
from nlijob.config import ReportConfig
from nlijob.records import Gates, Interval, Metrics


def check_gates(asked: ReportConfig, tuned: Metrics, gain: float, gain_interval: Interval) -> Gates:
    """Whether the outcome reaches what was asked for, with a sentence for each that it misses.

    Judged by the figures themselves or, where so asked, by the lower bounds of their intervals.
    """
    by_bound = asked.gate_on == "lower"
    failures = []
    if asked.min_accuracy is not None:
        held = tuned.accuracy_interval.low if by_bound else tuned.accuracy
        if held < asked.min_accuracy:
            may_be = f"may be as low as {percent(held, 2)}," if by_bound else "is"
            failures.append(
                f"test accuracy {percent(tuned.accuracy, 2)} ({count(tuned.correct)} of "
                f"{count(tuned.rows)}) {may_be} below the {100 * asked.min_accuracy:g} % asked for"
            )
    if asked.min_gain is not None:
        held = gain_interval.low if by_bound else gain
        if held < asked.min_gain:
            may_be = f"may be as low as {points(held)}," if by_bound else "is"
            failures.append(
                f"a gain of {points(gain)} {may_be} below the {100 * asked.min_gain:g} points "
                "asked for"
            )
    return Gates(passed=not failures, failures=tuple(failures))
