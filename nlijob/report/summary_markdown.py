"""A summary of the results in Markdown, for pull requests and chat."""

from __future__ import annotations

import re

from nlijob.analysis.forgetting import forgetting_sentence, has_forgotten
from nlijob.analysis.wording import count, points, with_interval
from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.report.view.summary import summary_section


def summary_markdown(results: Results) -> str:
    """The first screen of the report as Markdown; text from the data set is escaped."""
    summary = summary_section(results)
    base, tuned, bootstrap = results.base, results.tuned, results.bootstrap
    gates = [summary.gates, *summary.gate_failures] if summary.gates else []
    lines = [
        f"### {_plain(results.run.run_id)}: {_plain(summary.verdict)}",
        "",
        _plain(summary.verdict_note),
        "",
        f"| {count(tuned.rows)} test rows | before | after | change |",
        "|---|---|---|---|",
        _row(
            "accuracy",
            with_interval(base.accuracy, base.accuracy_interval),
            with_interval(tuned.accuracy, tuned.accuracy_interval),
            points(results.gain),
        ),
        _row(
            "balanced accuracy",
            with_interval(base.balanced_accuracy, bootstrap.balanced_accuracy.base),
            with_interval(tuned.balanced_accuracy, bootstrap.balanced_accuracy.tuned),
            points(tuned.balanced_accuracy - base.balanced_accuracy),
        ),
        _row(
            "macro F1",
            with_interval(base.macro_f1, bootstrap.macro_f1.base),
            with_interval(tuned.macro_f1, bootstrap.macro_f1.tuned),
            points(tuned.macro_f1 - base.macro_f1),
        ),
        "",
        "; ".join(f"{_plain(tile.name)} {_plain(tile.value)}" for tile in summary.tiles) + ".",
        *_forgetting(results),
        *([""] if gates else []),
        *(f"**{_plain(line)}**" for line in gates),
        *([""] if summary.warnings else []),
        *(f"- {_plain(warning)}" for warning in summary.warnings),
    ]
    return "\n".join(lines) + "\n"


def _forgetting(results: Results) -> list[str]:
    """A line about the loss on general text, where it was measured and is no warning anyway."""
    found = results.forgetting
    if found is None or has_forgotten(found):
        return []
    return ["", _plain(forgetting_sentence(found))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text escaped for Markdown, on one line, without control characters."""
    line = printable(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", line)
