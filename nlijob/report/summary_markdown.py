"""A summary of the results in Markdown, for pull requests and chat."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nlijob.analysis.forgetting import forgetting_sentence, has_forgotten
from nlijob.analysis.wording import plural, points, with_interval
from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.report.view.summary import Summary, summary_section
from nlijob.report.view.transfer import transfer_lines
from nlijob.report.view.warnings import WarningGroup, Warnings

MARKS = {"better": "🟢", "worse": "🔴", "unclear": "⚪"}
"""Tone of the verdict -> the first sign of the line at the top."""
PAGE = "report.html"
"""The page, beside the file with the summary."""


def summary_markdown(results: Results) -> str:
    """The first screen of the report as Markdown; text from the data set is escaped.

    It fits into a pull request: a line like a badge, the verdict, a table, and the warnings, of
    which only the most severe take room.
    """
    summary = summary_section(results)
    parts = (
        [_badge(results, summary)],
        [f"### {_plain(results.run.run_id)}: {_plain(summary.verdict)}"],
        [_plain(f"{summary.holds} {summary.verdict_note}")],
        [_plain(summary.scope)],
        [f"**{_plain(line)}**  " for line in _gates(summary)],
        _table(results),
        ["; ".join(f"{_plain(tile.name)} {_plain(tile.value)}" for tile in summary.tiles) + "."],
        [f"- {_plain(line)}" for line in transfer_lines(results)],
        _forgetting(results),
        _warnings(summary.cautions),
        [f"[The whole report]({PAGE})"],
    )
    return "\n\n".join("\n".join(lines) for lines in parts if any(lines)) + "\n"


def _badge(results: Results, summary: Summary) -> str:
    """The result on one line, for a list of pull requests or a chat."""
    gain = results.trials.gain.mean if results.trials else results.gain
    asked = [] if not summary.gates else ["passed" if summary.gates_passed else "not passed"]
    facts = [
        f"{MARKS[summary.tone]} **accuracy {summary.base.accuracy} → {summary.tuned.accuracy}**",
        points(gain),
        plural(results.tuned.rows, "test row"),
        *([plural(len(results.trials.trials), "training")] if results.trials else []),
        *(f"gates {outcome}" for outcome in asked),
    ]
    return " · ".join(facts)


def _gates(summary: Summary) -> list[str]:
    return [summary.gates, *summary.gate_failures] if summary.gates else []


def _table(results: Results) -> list[str]:
    base, tuned, bootstrap = results.base, results.tuned, results.bootstrap
    of_kept = f" of {results.trials.kept}" if results.trials else ""
    return [
        f"| {plural(tuned.rows, 'test row')} | before | after | change |",
        "|---|---|---|---|",
        *_mean(results),
        _row(
            "accuracy" + of_kept,
            with_interval(base.accuracy, base.accuracy_interval),
            with_interval(tuned.accuracy, tuned.accuracy_interval),
            points(results.gain),
        ),
        _row(
            "balanced accuracy" + of_kept,
            with_interval(base.balanced_accuracy, bootstrap.balanced_accuracy.base),
            with_interval(tuned.balanced_accuracy, bootstrap.balanced_accuracy.tuned),
            points(tuned.balanced_accuracy - base.balanced_accuracy),
        ),
        _row(
            "macro F1" + of_kept,
            with_interval(base.macro_f1, bootstrap.macro_f1.base),
            with_interval(tuned.macro_f1, bootstrap.macro_f1.tuned),
            points(tuned.macro_f1 - base.macro_f1),
        ),
    ]


def _warnings(warnings: Warnings) -> list[str]:
    """Those that the page shows at once; the others in a fold."""
    if not warnings.shown:
        return []
    more = [
        *("", f"<details><summary>{_plain(warnings.more_title)}</summary>", ""),
        *_groups(warnings.more),
        *("", "</details>"),
    ]
    return [*_groups(warnings.shown), *(more if warnings.more else [])]


def _groups(groups: Sequence[WarningGroup]) -> list[str]:
    lines: list[str] = []
    for group in groups:
        lines += [*([""] if lines else []), f"**{group.title}**", ""]
        lines += [f"- {_coded(code)}{_plain(text)}" for code, text in group.warnings]
    return lines


def _coded(code: str) -> str:
    return f"`{code}`: " if code else ""  # unknown in older outcomes


def _forgetting(results: Results) -> list[str]:
    """A line about the loss on general text, where it was measured and is no warning anyway."""
    found = results.forgetting
    if found is None or has_forgotten(found):
        return []
    return [_plain(forgetting_sentence(found))]


def _mean(results: Results) -> tuple[str, ...]:
    """The row with the mean of several trainings; none where there is one."""
    trials = results.trials
    if trials is None:
        return ()
    base = results.base
    return (
        _row(
            f"accuracy, mean of {plural(len(trials.trials), 'training')}",
            with_interval(base.accuracy, base.accuracy_interval),
            with_interval(trials.accuracy.mean, trials.accuracy.interval),
            points(trials.gain.mean),
        ),
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text escaped for Markdown, on one line, without control characters."""
    line = printable(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", line)
