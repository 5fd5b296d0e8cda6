"""Several trainings of one recipe: how they differ, and what that says about a further one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from nlijob.analysis.wording import (
    NOT_MEASURED,
    count,
    interval,
    mcnemar_name,
    p_value,
    percent,
    plural,
    points,
    points_interval,
    share_of,
    with_interval,
)
from nlijob.records.outcome import Results
from nlijob.records.trials import Ensemble, TrialOutcome, Trials, VarianceShares
from nlijob.report.view.parts import Fact, Row, Table, View, columns, row
from nlijob.report.view.scope import helped_sentence, kept_training
from nlijob.report.view.text import percent_or, unbroken, visible

RARE = 0.05
"""Chance at which a share of failures is still not excluded if none was seen."""


def trainings_section(results: Results) -> View | None:
    """All trainings, what a further one would give, and their rows; None if there is one."""
    trials = results.trials
    if trials is None:
        return None
    number = len(trials.trials)
    return View(
        lead=unbroken(_lead(results, trials)),
        table=_table(results, trials),
        table_note=unbroken(
            f"{helped_sentence(trials)} Interval and test of a single training are about its "
            "adapter on other rows; those of the mean hold for other trainings too."
        ),
        far_off=tuple(
            unbroken(_far_off(one, results.manifest.label_names))
            for one in trials.trials
            if one.name in trials.far_off
        ),
        further=tuple(map(unbroken, _further(trials))),
        rows=tuple(_rows(trials)),
        ensemble=unbroken(_ensemble(trials.ensemble, trials.kept)),
        limits_title=f"What {plural(number, 'training')} cannot tell",
        limits=tuple(map(unbroken, _limits(trials))),
        notes=tuple(Fact(note.name, unbroken(note.value)) for note in _notes(number)),
    )


def _lead(results: Results, trials: Trials) -> str:
    return (
        f"{plural(len(trials.trials), 'training')} of this recipe differ in their seed alone. The "
        "seed decides on the adapter's first weights, the order of the rows and dropout. All start "
        f"from the same base model and labelled the same {plural(results.base.rows, 'test row')}."
    )


def _table(results: Results, trials: Trials) -> Table:
    base, validation = results.base, results.base_validation
    return Table(
        "Each training, and their mean",
        columns(
            "training",
            "test accuracy",
            "change",
            "McNemar test, adjusted",
            "selected epoch",
            "validation accuracy",
        ),
        (
            row(
                "base model",
                f"{percent(base.accuracy)}\n{interval(base.accuracy_interval)}",
                "",
                "",
                "",
                percent_or(validation.accuracy if validation else None, NOT_MEASURED),
            ),
            *(_training(one, trials) for one in trials.trials),
            row(
                f"mean of {len(trials.trials)}",
                f"{percent(trials.accuracy.mean)}\n{interval(trials.accuracy.interval)}",
                f"{points(trials.gain.mean)}\n{points_interval(trials.gain.interval)}",
                "",
                "",
                percent(fmean(one.selection.validation_accuracy for one in trials.trials)),
            ),
        ),
    )


def _training(one: TrialOutcome, trials: Trials) -> Row:
    change = one.change
    return row(
        one.name,
        f"{percent(one.accuracy)}\n{interval(one.accuracy_interval)}",
        f"{points(change.difference)}\n{points_interval(change.interval)}",
        unbroken(p_value(change.mcnemar_p if one.adjusted_p is None else one.adjusted_p)),
        str(one.selection.epoch),
        percent(one.selection.validation_accuracy),
        mark=_mark(one.name, trials),
    )


def _mark(name: str, trials: Trials) -> str:
    marks = {"adapter kept": name == trials.kept, "far off": name in trials.far_off}
    return ", ".join(mark for mark, applies in marks.items() if applies)


def _far_off(one: TrialOutcome, label_names: Sequence[str]) -> str:
    """What is known of a training whose accuracy is far off that of all others."""
    text = f"The test accuracy of {one.name} is far off that of all others, beyond chance."
    if not one.answers:
        return text
    label = max(range(len(one.answers)), key=one.answers.__getitem__)
    return (
        f"{text} Its most frequent answer is “{visible(label_names[label])}”, for "
        f"{share_of(one.answers[label], one.rows)} of the test rows. Its curve is under Epochs and "
        "selection."
    )


def _further(trials: Trials) -> Iterator[str]:
    """What a further training would give, and what would narrow the interval of the mean."""
    another = trials.accuracy.another
    if another is None:
        yield (
            f"{plural(len(trials.trials), 'training')} are too few to say where the test accuracy "
            "of a further one would be."
        )
    else:
        gain = trials.gain.another
        change = f", a change of {points_interval(gain)} points" if gain else ""
        yield (
            "One further training of this recipe, tested on as many other rows of this kind, is "
            f"expected to reach a test accuracy of {interval(another)}{change} (95 % interval)."
        )
    yield _shares(trials.variance)
    yield _narrower(trials)


def _shares(variance: VarianceShares) -> str:
    return (
        "Of the variance of the mean accuracy, "
        f"{percent(variance.trainings, 0)} is due to the choice of trainings, "
        f"{percent(variance.rows, 0)} to the choice of test rows, and "
        f"{percent(variance.both, 0)} to rows that one training happens to label correctly and "
        "another does not."
    )


def _narrower(trials: Trials) -> str:
    """Which helps more, and how much: twice as many trainings, or twice as many test rows."""
    variance, number = trials.variance, len(trials.trials)
    now, trainings, rows = (
        _half(width)
        for width in (
            variance.half_width,
            variance.half_width_more_trainings,
            variance.half_width_more_rows,
        )
    )
    text = (
        f"The interval of the mean is about ±{now} points. With {2 * number} trainings it would be "
        f"about ±{trainings}, with twice as many test rows about ±{rows}"
    )
    if trainings == rows:
        return f"{text}: both help about as much."
    better = "trainings" if float(trainings) < float(rows) else "test rows"
    return f"{text}: more {better} would narrow it more."


def _rows(trials: Trials) -> Iterator[Fact]:
    rows, number = trials.rows, len(trials.trials)
    whole = sum(rows.counts)
    yield Fact(f"correct in all {count(number)}", share_of(rows.in_all, whole))
    yield Fact("correct in some", share_of(rows.in_some, whole))
    yield Fact("correct in none", share_of(rows.in_none, whole))
    yield Fact(
        "corrected in all",
        share_of(rows.corrected_in_all, whole),
        "the base model is wrong, every training is correct",
    )
    yield Fact(
        "broken in all",
        share_of(rows.broken_in_all, whole),
        "the base model is correct, every training is wrong",
    )
    yield Fact(
        "two trainings answer differently",
        percent(rows.disagreement),
        "of the rows, mean over all pairs of trainings",
    )


def _ensemble(ensemble: Ensemble, kept: str) -> str:
    over = ensemble.over_kept
    return (
        "As a control, the mean of all trainings' probabilities was taken as one model. It labels "
        f"{with_interval(ensemble.accuracy, ensemble.accuracy_interval)} of the test rows "
        f"correctly: {points(over.difference)} compared with {kept} "
        f"({points_interval(over.interval)}; {mcnemar_name(over.premises)}, "
        f"{p_value(over.mcnemar_p)}). Using it takes all adapters, which "
        "--keep all keeps."
    )


def _limits(trials: Trials) -> Iterator[str]:
    number = len(trials.trials)
    unseen = 1 - RARE ** (1 / number)
    yield (
        f"How often a training fails. What happened in none of {number} trainings may still happen "
        f"in up to {percent(unseen, 0)} of further ones (one-sided bound at 95 %, Clopper and "
        "Pearson, 1934)."
    )
    yield (
        "How low or how high a training can end. More trainings would show lower and higher "
        "figures than these."
    )
    yield (
        f"That {kept_training(trials).name} is a better adapter than the others: the best of "
        "several validation accuracies is best partly by chance."
    )
    yield (
        "What other training rows would give. All trainings had the same, in another order, so no "
        "interval covers their choice."
    )


def _notes(number: int) -> Iterator[Fact]:
    yield Fact(
        "Interval of a mean over trainings",
        "The variance of the mean has a part of the trainings, a part of the test rows, and a part "
        "of rows that one training happens to label correctly and another does not (Searle, "
        "Casella and McCulloch, 1992). The trainings' part gets Student's t with "
        f"{number - 1} degrees of freedom, the rows' part the interval of a single training, and "
        "their squares are added (Howe, 1974). The interval is never narrower than Student's t of "
        "the trainings' own figures. Rows that share a premise count together.",
    )
    yield Fact(
        "One further training",
        "The variance of its figure on as many other rows, plus that of the mean.",
    )
    yield Fact(
        "Helped beyond chance",
        "Each training is compared with the base model by the exact McNemar test, as under "
        "Accuracy; the p-values are Holm-adjusted for the number of trainings.",
    )


def _half(width: float) -> str:
    """Half of the width of an interval in points, at least 0.1."""
    return f"{max(0.1, 100 * width):.1f}"
