"""The selected epoch: by validation accuracy, then loss, then number; never by test scores."""

from __future__ import annotations

import pytest

from nlijob.analysis.selection import select
from nlijob.records.job import EpochResult, Memory, SplitScore


def epoch(
    number: int, correct: int, loss: float = 0.5, test: int = 0, rows: int = 98
) -> EpochResult:
    return EpochResult(
        epoch=number,
        steps=1,
        examples=8,
        train_loss=0.1,
        duration_s=1.0,
        validation=SplitScore("validation", rows, correct, loss, 1.0),
        test=SplitScore("test", rows, test, 0.5, 1.0),
        memory=Memory(None, None),
    )


def test_highest_validation_accuracy_wins_over_lower_loss() -> None:
    assert select([epoch(1, 60, 0.4), epoch(2, 61, 0.9), epoch(3, 59, 0.1)]).epoch == 2


def test_tie_on_accuracy_goes_to_lower_loss() -> None:
    assert select([epoch(1, 60, 0.5), epoch(2, 60, 0.4)]).epoch == 2


def test_tie_on_both_goes_to_earlier_epoch() -> None:
    assert select([epoch(3, 60), epoch(1, 60), epoch(2, 60)]).epoch == 1


def test_test_scores_do_not_affect_the_selection() -> None:
    plain = select([epoch(1, 60), epoch(2, 61)])
    assert select([epoch(1, 60, test=98), epoch(2, 61, test=0)]) == plain


def test_epochs_tied_on_accuracy_are_named() -> None:
    assert select([epoch(1, 60), epoch(2, 58), epoch(3, 60)]).tied_on_accuracy == (1, 3)


def test_no_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="no epoch"):
        select([])


def test_epochs_scored_on_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        select([epoch(1, 60, rows=98), epoch(2, 60, rows=99)])
