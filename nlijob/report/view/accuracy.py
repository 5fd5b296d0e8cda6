"""Base and tuned model on the test rows."""

from __future__ import annotations

from nlijob.analysis.label_bias import label_bias_sentences
from nlijob.analysis.precision import narrower_sentence
from nlijob.analysis.wording import (
    count,
    interval,
    loss,
    loss_difference,
    percent,
    plural,
    points,
    points_interval,
)
from nlijob.records.intervals import Interval
from nlijob.records.outcome import (
    BootstrapIntervals,
    ChangeIntervals,
    ClassMetrics,
    Results,
)
from nlijob.records.trials import Trials
from nlijob.report.view.case_links import Side, answer_link, answers_with_cases
from nlijob.report.view.controls import controls_section
from nlijob.report.view.parts import Matrix, MatrixCell, Row, Table, View, columns, row
from nlijob.report.view.text import percent_or, unbroken, visible


def accuracy_section(results: Results) -> View:
    """All metrics before and after tuning, overall and by label, and both confusion matrices."""
    base, tuned = results.base, results.tuned
    return View(
        lead=(
            f"Both models labelled the same {plural(tuned.rows, 'test row')}, in the same "
            f"batches. {_of_kept(results.trials)}All intervals are 95 % confidence intervals. "
            f"{_premises(results)}"
        ).strip(),
        resamples=_resamples(results.bootstrap),
        controls=controls_section(results),
        more_rows=_more_rows(results),
        label_bias=tuple(
            unbroken(visible(sentence)) for sentence in label_bias_sentences(base, tuned)
        ),
        overall=_overall_table(results),
        by_label=Table(
            "By label (one versus the rest)",
            columns(
                "label",
                "rows",
                "predicted before",
                "predicted after",
                "precision before",
                "precision after",
                "recall before",
                "recall after",
                "F1 before",
                "F1 after",
            ),
            tuple(
                _label_row(before, after)
                for before, after in zip(base.classes, tuned.classes, strict=True)
            ),
        ),
        matrices=(
            _matrix("Before: base model", "before", results),
            _matrix("After: tuned model", "after", results),
        ),
    )


def _of_kept(trials: Trials | None) -> str:
    """Which training's model is tuned here; "" where there is one training."""
    return f"The tuned model is that of {trials.kept}, whose adapter is kept. " if trials else ""


def _overall_table(results: Results) -> Table:
    base, tuned, bootstrap = results.base, results.tuned, results.bootstrap
    rows = [
        row(
            f"accuracy ({count(base.correct)} → {count(tuned.correct)} correct)",
            _with(base.accuracy, base.accuracy_interval),
            _with(tuned.accuracy, tuned.accuracy_interval),
            _change(results.gain, results.gain_interval),
        ),
        _interval_row(
            "balanced accuracy",
            base.balanced_accuracy,
            tuned.balanced_accuracy,
            bootstrap.balanced_accuracy,
        ),
        _interval_row("macro F1", base.macro_f1, tuned.macro_f1, bootstrap.macro_f1),
        row(
            "mean loss (nats)",
            loss(base.loss),
            loss(tuned.loss),
            loss_difference(tuned.loss - base.loss),
        ),
    ]
    if base.label_mass is not None and tuned.label_mass is not None:
        rows.append(_share_row("probability on label tokens", base.label_mass, tuned.label_mass))
    return Table("Test split", columns("figure", "before", "after", "change"), tuple(rows))


def _premises(results: Results) -> str:
    """What counts as a unit in intervals and tests; "" in older outcomes."""
    groups = results.test_premises
    if groups is None:
        return ""
    if groups.premises == groups.rows:
        return "Every test row has a premise of its own, so rows count as independent."
    if groups.premises == 1:
        return "All test rows have the same premise; rows count as independent."
    return (
        f"The rows have {count(groups.premises)} different premises, with up to "
        f"{plural(groups.most_rows, 'row')} each. Rows that share a premise are not independent, "
        "so intervals and tests take premises as the units."
    )


def _resamples(intervals: BootstrapIntervals) -> str:
    unit = "test rows" if intervals.premises is None else plural(intervals.premises, "premise")
    return (
        f"Percentile bootstrap over the {unit} with {count(intervals.resamples)} resamples, the "
        "same for both models, after two pseudo-rows were spread evenly over all outcomes (Efron "
        "and Tibshirani, 1993)."
    )


def _more_rows(results: Results) -> str:
    if results.on_all_rows is None:
        return ""
    return f"{narrower_sentence(results.on_all_rows)} Use --test-size 0 to take all of them."


def _interval_row(name: str, before: float, after: float, intervals: ChangeIntervals) -> Row:
    return row(
        name,
        _with(before, intervals.base),
        _with(after, intervals.tuned),
        _change(after - before, intervals.change),
    )


def _with(share: float, bounds: Interval | None) -> str:
    """A share, with its interval on a second line."""
    return percent(share) + (f"\n{interval(bounds)}" if bounds else "")


def _change(change: float, bounds: Interval | None) -> str:
    if bounds is None:
        return points(change)
    return f"{points(change)}\n{points_interval(bounds)}"


def _share_row(name: str, before: float, after: float) -> Row:
    return row(name, percent(before), percent(after), points(after - before))


def _label_row(before: ClassMetrics, after: ClassMetrics) -> Row:
    return row(
        before.name,
        count(before.support),
        count(before.predicted),
        count(after.predicted),
        percent_or(before.precision, "never predicted"),
        percent_or(after.precision, "never predicted"),
        percent_or(before.recall, "no rows"),
        percent_or(after.recall, "no rows"),
        percent(before.f1),
        percent(after.f1),
    )


def _matrix(caption: str, side: Side, results: Results) -> Matrix:
    metrics = results.base if side == "before" else results.tuned
    names = results.manifest.label_names
    with_cases = answers_with_cases(results.cases, side)

    def cell(gold: int, predicted: int) -> MatrixCell:
        rows, total = metrics.confusion[gold][predicted], sum(metrics.confusion[gold])
        share = rows / total if total else 0.0
        return MatrixCell(
            count(rows),
            percent(share, 0) if total else "",
            share,
            gold == predicted,
            answer_link(gold, predicted, side, names) if (gold, predicted) in with_cases else None,
        )

    labels = range(len(names))
    return Matrix(
        caption,
        tuple(names),
        tuple((names[gold], tuple(cell(gold, answer) for answer in labels)) for gold in labels),
    )
