"""Calibration: whether confidence matches accuracy."""

from __future__ import annotations

from nlijob.analysis.calibration import calibration_sentence
from nlijob.analysis.wording import count, decimal, loss_difference, percent, points
from nlijob.records.outcome import Calibration, ReliabilityBin, Results
from nlijob.report.view.parts import Row, Table, View, columns, row
from nlijob.report.view.text import unbroken


def calibration_section(results: Results) -> View:
    """Expected calibration error, Brier score and reliability bins of both models."""
    base, tuned = results.base.calibration, results.tuned.calibration
    return View(
        sentences=(
            unbroken(calibration_sentence("base", base)),
            unbroken(calibration_sentence("tuned", tuned)),
        ),
        table=Table(
            "Calibration on the test split",
            columns("figure", "before", "after", "change"),
            (
                _points_row("expected calibration error (points)", base.ece, tuned.ece),
                row(
                    "ECE of a calibrated model: mean; 95th percentile",
                    _if_calibrated(base),
                    _if_calibrated(tuned),
                    "",
                ),
                row(
                    "Brier score (0 to 2)",
                    decimal(base.brier),
                    decimal(tuned.brier),
                    loss_difference(tuned.brier - base.brier),
                ),
                row(
                    "mean probability of the answer",
                    percent(base.mean_confidence),
                    percent(tuned.mean_confidence),
                    "",
                ),
            ),
        ),
        bins=Table(
            "Reliability by probability of the answer",
            columns(
                "probability of the answer",
                "rows before",
                "correct before",
                "rows after",
                "correct after",
            ),
            tuple(
                _bin_row(before, after)
                for before, after in zip(base.bins, tuned.bins, strict=True)
                if before.rows or after.rows
            ),
        ),
    )


def _points_row(name: str, before: float, after: float) -> Row:
    return row(
        name, _points(before), _points(after), points(after - before).removesuffix(" points")
    )


def _if_calibrated(found: Calibration) -> str:
    return f"{_points(found.ece_if_calibrated)}; {_points(found.ece_if_calibrated_high)}"


def _points(share: float) -> str:
    return percent(share).removesuffix(" %")


def _bin_row(before: ReliabilityBin, after: ReliabilityBin) -> Row:
    return row(
        f"above {100 * before.low:.0f} to {100 * before.high:.0f} %",
        count(before.rows),
        "" if before.accuracy is None else percent(before.accuracy),
        count(after.rows),
        "" if after.accuracy is None else percent(after.accuracy),
    )
