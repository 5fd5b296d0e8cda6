"""The outcome in a few lines of Markdown, for pull requests and chat."""

from __future__ import annotations

import re

from nlijob.analysis.wording import count, interval, percent, points
from nlijob.records import Metrics, Results
from nlijob.report.view.summary import summary_section


def summary_markdown(results: Results) -> str:
    """The first screen of the report as Markdown; texts of the data set are shown as text."""
    summary = summary_section(results)
    gates = [summary.gates, *summary.gate_failures] if summary.gates else []
    lines = [
        f"### {_plain(results.run.run_id)}: {_plain(summary.verdict)}",
        "",
        _plain(summary.verdict_note),
        "",
        f"| {count(results.tuned.rows)} test rows | before | after | change |",
        "|---|---|---|---|",
        _row("accuracy", _accuracy(results.base), _accuracy(results.tuned), points(results.gain)),
        *(
            _row(name, percent(before), percent(after), points(after - before))
            for name, before, after in (
                (
                    "balanced accuracy",
                    results.base.balanced_accuracy,
                    results.tuned.balanced_accuracy,
                ),
                ("macro F1", results.base.macro_f1, results.tuned.macro_f1),
            )
        ),
        "",
        "; ".join(f"{_plain(tile.name)} {_plain(tile.value)}" for tile in summary.tiles) + ".",
        *([""] if gates else []),
        *(f"**{_plain(line)}**" for line in gates),
        *([""] if summary.warnings else []),
        *(f"- {_plain(warning)}" for warning in summary.warnings),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(metrics: Metrics) -> str:
    bounds = metrics.accuracy_interval
    return f"{percent(metrics.accuracy)} ({interval(bounds.low, bounds.high)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", " ".join(text.split()))
