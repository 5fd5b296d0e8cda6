"""The score of each epoch, and the epoch that was selected."""

from __future__ import annotations

from nlijob.analysis.statistics import wilson_interval
from nlijob.analysis.wording import NOT_MEASURED, interval, listed, share_of
from nlijob.records.job import EpochResult, SplitScore
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Row, Table, View, columns, row
from nlijob.report.view.text import unbroken


def epochs_section(results: Results) -> View:
    """The base model (epoch 0) and each epoch; the selected one is marked."""
    selected = results.selection.epoch
    return View(
        lead=unbroken(_lead(results)),
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
            (_epoch_zero(results), *(_epoch_row(epoch, selected) for epoch in results.epochs)),
        ),
        note=(
            "Test accuracy by epoch is for information only: it was not used to choose the epoch. "
            "Losses are in nats. The training loss is the mean over the epoch's rows, with dropout "
            "on and while the weights were still changing."
        ),
    )


def _lead(results: Results) -> str:
    selection = results.selection
    chosen = next(epoch for epoch in results.epochs if epoch.epoch == selection.epoch)
    score = chosen.validation
    lead = (
        f"Epoch {selection.epoch} was selected, with a validation accuracy of "
        f"{share_of(score.correct, score.rows)} and a loss of {score.loss:.3f}. "
        f"Rule: {selection.rule}."
    )
    if len(selection.tied_on_accuracy) > 1:
        tied = listed([str(epoch) for epoch in selection.tied_on_accuracy])
        lead += f" Epochs {tied} tied on accuracy."
    return lead


def _epoch_zero(results: Results) -> Row:
    score = results.base_validation
    validation = _scored(score) if score else (NOT_MEASURED,) * 3
    return row(
        "0 (base)", "no training", *validation, share_of(results.base.correct, results.base.rows)
    )


def _epoch_row(epoch: EpochResult, selected: int) -> Row:
    test = share_of(epoch.test.correct, epoch.test.rows) if epoch.test else NOT_MEASURED
    return row(
        str(epoch.epoch),
        f"{epoch.train_loss:.3f}",
        *_scored(epoch.validation),
        test,
        mark="selected" if epoch.epoch == selected else "",
    )


def _scored(score: SplitScore) -> tuple[str, str, str]:
    bounds = wilson_interval(score.correct, score.rows)
    return f"{score.loss:.3f}", share_of(score.correct, score.rows), interval(bounds)
