"""Selects the checkpoint to keep by its validation scores alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nlijob.records.job import EpochResult, Selection

RULE_OF_TRIALS = (
    "highest validation accuracy of the selected epoch; on a tie the lower validation loss, then "
    "the earlier training"
)
RULE = "highest validation accuracy; on a tie the lower validation loss, then the earlier epoch"


def select(epochs: Sequence[EpochResult]) -> Selection:
    """The epoch to keep according to `RULE`. Test scores are never used.

    Accuracies are compared as numbers of correct rows, so that ties are exact. Raises ValueError
    without epochs, or where epochs were scored on different numbers of rows.
    """
    if not epochs:
        raise ValueError("no epoch to select from")
    if len({epoch.validation.rows for epoch in epochs}) > 1:
        raise ValueError("epochs were scored on different numbers of validation rows")
    best = min(epochs, key=lambda e: (-e.validation.correct, e.validation.loss, e.epoch))
    return Selection(
        epoch=best.epoch,
        rule=RULE,
        validation_accuracy=best.validation.accuracy,
        validation_loss=best.validation.loss,
        candidates=len(epochs),
        tied_on_accuracy=tuple(
            e.epoch for e in epochs if e.validation.correct == best.validation.correct
        ),
    )


def best_of(selections: Mapping[str, Selection]) -> str:
    """The training to keep according to `RULE_OF_TRIALS`, of those in the mapping, in their order.

    Test scores are never used. Raises ValueError without any.
    """
    if not selections:
        raise ValueError("no training to choose from")
    return min(
        selections,
        key=lambda name: (-selections[name].validation_accuracy, selections[name].validation_loss),
    )
