"""Whether the records of a run agree with each other where they say the same thing twice."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.selection import select
from nlijob.records.job import Example, Prediction, ScoreResult, Selection, TrainResult


def check_rows(
    predictions: Sequence[Prediction], examples: Sequence[Example], result: ScoreResult
) -> None:
    """Raise ValueError unless predictions are for the test rows and add up to the model's score."""
    gold = {example.index: example.label for example in examples}
    if {row.index: row.label for row in predictions} != gold or len(predictions) != len(gold):
        raise ValueError(
            f"the predictions of the {result.model} model are for other test rows, or have other "
            "gold labels, than subset/test.jsonl"
        )
    score = result.scores["test"]
    counted = len(predictions), sum(row.is_right for row in predictions)
    if counted != (score.rows, score.correct):
        raise ValueError(
            f"the predictions of the {result.model} model are right for {counted[1]} of "
            f"{counted[0]} test rows, and its result says {score.correct} of {score.rows}"
        )


def check_selection(training: TrainResult, selection: Selection, evaluation: ScoreResult) -> None:
    """Raise ValueError unless the evaluated epoch is the one that the selection rule selects."""
    best = select(training.epochs).epoch
    if not best == selection.epoch == evaluation.epoch:
        raise ValueError(
            f"by its validation scores epoch {best} is selected, selection.json says epoch "
            f"{selection.epoch}, and epoch {evaluation.epoch} was evaluated"
        )
