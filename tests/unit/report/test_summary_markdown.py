"""The summary in Markdown."""

from __future__ import annotations

from dataclasses import replace

from nlijob.analysis.wording import percent, points
from nlijob.records.outcome import Finding, Gates
from nlijob.report.summary_markdown import summary_markdown
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, several_trainings


def test_it_contains_verdict_figures_and_warnings() -> None:
    results = outcome(Spec())
    text = summary_markdown(results)
    assert f"\n### {results.run.run_id}: Tuning raised test accuracy" in text
    assert f"| accuracy | {percent(results.base.accuracy)} (" in text
    assert text.count("\n- `") == len(results.warnings)
    assert "GPU energy" in text


def test_a_missed_gate_is_shown() -> None:
    failure = Finding("min-accuracy", {}, "accuracy is below what was asked")
    missed = replace(outcome(Spec()), gates=Gates(False, (failure,)))
    asked = replace(missed.run.config.report, min_accuracy=0.99)
    config = replace(missed.run.config, report=asked)
    text = summary_markdown(replace(missed, run=replace(missed.run, config=config)))
    assert "**accuracy is below what was asked**" in text
    assert text.splitlines()[0].endswith(" · gates not passed")


def test_the_line_at_the_top_is_like_a_badge() -> None:
    results = outcome(Spec())
    before, after = percent(results.base.accuracy), percent(results.tuned.accuracy)
    (line, *_) = summary_markdown(results).splitlines()
    assert line == (
        f"🟢 **accuracy {before} → {after}** · {points(results.gain)} · "
        f"{results.tuned.rows} test rows"
    )
    (line, *_) = summary_markdown(several_trainings()).splitlines()
    assert line.endswith(" · 3 trainings")


def test_only_the_most_severe_warnings_are_not_in_the_fold() -> None:
    text = summary_markdown(outcome(Spec()))
    shown, _, folded = text.partition("<details>")
    assert shown.count("\n- `") == 3
    assert folded.count("\n- `") == len(outcome(Spec()).warnings) - 3
    assert folded.partition("</details>")[2] == "\n\n[The whole report](report.html)\n"


def test_texts_cannot_become_markup() -> None:
    results = outcome(Spec())
    hostile = replace(
        results, warnings=(Finding("", {}, "| a <b>x</b> [l](u) `c`\n# not a heading @all"),)
    )
    (line,) = (line for line in summary_markdown(hostile).splitlines() if line.startswith("- "))
    assert line == r"- \| a \<b\>x\</b\> \[l\](u) \`c\` \# not a heading \@all"


def test_the_mean_of_several_trainings_comes_before_the_one_that_is_kept() -> None:
    results = several_trainings()
    assert results.trials is not None
    lines = summary_markdown(results).splitlines()
    mean = next(n for n, line in enumerate(lines) if line.startswith("| accuracy, mean of 3 trai"))
    assert f"| {percent(results.trials.accuracy.mean)} (" in lines[mean]
    assert lines[mean + 1].startswith("| accuracy of seed-43 |")
    assert "mean of" not in summary_markdown(outcome(Spec()))
