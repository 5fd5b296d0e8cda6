"""A summary of the results in Markdown, for pull requests and chat."""

from __future__ import annotations

import re

from nlijob.analysis.forgetting import forgetting_sentence, has_forgotten
from nlijob.analysis.wording import count, plural, points, with_interval
from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.report.view.summary import summary_section
from nlijob.report.view.transfer import transfer_lines


def summary_markdown(results: Results) -> str:
    """The first screen of the report as Markdown; text from the data set is escaped."""
    summary = summary_section(results)
    base, tuned, bootstrap = results.base, results.tuned, results.bootstrap
    of_kept = f" of {results.trials.kept}" if results.trials else ""
    gates = [summary.gates, *summary.gate_failures] if summary.gates else []
    elsewhere = transfer_lines(results)
    lines = [
        f"### {_plain(results.run.run_id)}: {_plain(summary.verdict)}",
        "",
        _plain(summary.verdict_note),
        "",
        _plain(summary.scope),
        "",
        f"| {count(tuned.rows)} test rows | before | after | change |",
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
        "",
        "; ".join(f"{_plain(tile.name)} {_plain(tile.value)}" for tile in summary.tiles) + ".",
        *([""] if elsewhere else []),
        *(f"- {_plain(line)}" for line in elsewhere),
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
