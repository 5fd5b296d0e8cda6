"""The summary in Markdown."""

from __future__ import annotations

from dataclasses import replace

from nlijob.analysis.wording import percent
from nlijob.records.outcome import Finding, Gates
from nlijob.report.summary_markdown import summary_markdown
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, several_trainings


def test_it_contains_verdict_figures_and_warnings() -> None:
    results = outcome(Spec())
    text = summary_markdown(results)
    assert text.startswith(f"### {results.run.run_id}: Tuning raised test accuracy")
    assert f"| accuracy | {percent(results.base.accuracy)} (" in text
    assert text.count("\n- ") == len(results.warnings)
    assert "GPU energy" in text


def test_a_missed_gate_is_shown() -> None:
    failure = Finding("min-accuracy", {}, "accuracy is below what was asked")
    missed = replace(outcome(Spec()), gates=Gates(False, (failure,)))
    asked = replace(missed.run.config.report, min_accuracy=0.99)
    config = replace(missed.run.config, report=asked)
    text = summary_markdown(replace(missed, run=replace(missed.run, config=config)))
    assert "**accuracy is below what was asked**" in text


def test_texts_cannot_become_markup() -> None:
    results = outcome(Spec())
    hostile = replace(
        results, warnings=(Finding("", {}, "| a <b>x</b> [l](u) `c`\n# not a heading @all"),)
    )
    line = summary_markdown(hostile).rstrip().splitlines()[-1]
    assert line == r"- \| a \<b\>x\</b\> \[l\](u) \`c\` \# not a heading \@all"


def test_the_mean_of_several_trainings_comes_before_the_one_that_is_kept() -> None:
    results = several_trainings()
    assert results.trials is not None
    lines = summary_markdown(results).splitlines()
    mean = next(n for n, line in enumerate(lines) if line.startswith("| accuracy, mean of 3 trai"))
    assert f"| {percent(results.trials.accuracy.mean)} (" in lines[mean]
    assert lines[mean + 1].startswith("| accuracy of seed-43 |")
    assert "mean of" not in summary_markdown(outcome(Spec()))
