"""The score of each epoch, and the epoch that was selected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from nlijob.analysis.epoch_comparison import loss_sentence
from nlijob.analysis.statistics import wilson_interval
from nlijob.analysis.wording import NOT_MEASURED, count, interval, listed, loss, plural, share_of
from nlijob.records.intervals import Interval
from nlijob.records.job import EpochResult, SplitScore
from nlijob.records.outcome import Results
from nlijob.records.trials import Trials
from nlijob.report.view.parts import Row, Table, View, columns, row
from nlijob.report.view.text import unbroken


def epochs_section(results: Results) -> View:
    """The base model (epoch 0) and each epoch; the selected one is marked."""
    bounds = validation_intervals(results)
    return View(
        trainings=unbroken(_trainings(results.trials)),
        lead=unbroken(_lead(results)),
        losses=unbroken(loss_sentence(results.validation_loss_change)),
        table=Table(
            "Accuracy and loss after each epoch",
            columns(
                "epoch",
                "training loss",
                "validation loss",
                "validation accuracy",
                "95 % interval",
                "test accuracy (information only)",
            ),
            (
                _epoch_zero(results, bounds),
                *(_epoch_row(epoch, results, bounds) for epoch in results.epochs),
            ),
        ),
        note=(
            "Test accuracy by epoch is for information only: it was not used to choose the epoch. "
            "Losses are in nats. The training loss is the mean over the epoch's rows, with dropout "
            "on and while the weights were still changing."
        ),
    )


def _trainings(trials: Trials | None) -> str:
    """What is about all trainings here, and what about one; "" where there is one."""
    if trials is None:
        return ""
    epochs = Counter(one.selection.epoch for one in trials.trials)
    selected = listed([f"{epoch} in {count(times)}" for epoch, times in sorted(epochs.items())])
    return (
        "Each training selects its own epoch by its validation accuracy: epoch "
        f"{selected} of {plural(len(trials.trials), 'training')}. Everything below the first two "
        f"charts is about {trials.kept}, whose adapter is kept."
    )


def _lead(results: Results) -> str:
    selection = results.selection
    chosen = next(epoch for epoch in results.epochs if epoch.epoch == selection.epoch)
    score = chosen.validation
    lead = (
        f"Epoch {selection.epoch} was selected, with a validation accuracy of "
        f"{share_of(score.correct, score.rows)} and a loss of {loss(score.loss)}. "
        f"Rule: {selection.rule}."
    )
    if len(selection.tied_on_accuracy) > 1:
        tied = listed([str(epoch) for epoch in selection.tied_on_accuracy])
        lead += f" Epochs {tied} tied on accuracy."
    return lead


def _epoch_zero(results: Results, bounds: Mapping[int, Interval]) -> Row:
    score = results.base_validation
    validation = _scored(score, bounds[0]) if score else (NOT_MEASURED,) * 3
    return row(
        "0 (base)", "no training", *validation, share_of(results.base.correct, results.base.rows)
    )


def _epoch_row(epoch: EpochResult, results: Results, bounds: Mapping[int, Interval]) -> Row:
    test = share_of(epoch.test.correct, epoch.test.rows) if epoch.test else NOT_MEASURED
    return row(
        str(epoch.epoch),
        loss(epoch.train_loss),
        *_scored(epoch.validation, bounds[epoch.epoch]),
        test,
        mark="selected" if epoch.epoch == results.selection.epoch else "",
    )


def _scored(score: SplitScore, bounds: Interval) -> tuple[str, str, str]:
    return loss(score.loss), share_of(score.correct, score.rows), interval(bounds)


def validation_intervals(results: Results) -> dict[int, Interval]:
    """The interval of the validation accuracy by epoch; older outcomes take rows as independent."""
    base = {0: results.base_validation} if results.base_validation else {}
    scores = {**base, **{epoch.epoch: epoch.validation for epoch in results.epochs}}
    return {
        **{epoch: wilson_interval(score.correct, score.rows) for epoch, score in scores.items()},
        **{one.epoch: one.interval for one in results.validation_intervals},
    }
