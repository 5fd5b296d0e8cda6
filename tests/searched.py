"""Adds a search for settings to a synthetic run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nlijob.analysis.selection import select
from nlijob.config import SweepConfig, with_seeds
from nlijob.fingerprints import stage_inputs
from nlijob.records.job import EpochResult, Memory, Prediction, RunRecord, SplitScore, of_split
from nlijob.records.search import CandidateResult
from nlijob.records.serialization import read, read_lines
from nlijob.rundir import RunDir, write_record, write_records
from nlijob.space import Values
from nlijob.sweep import Candidate, combinations, resolved, winner_of
from tests.synthetic import STAMPS, mark_stages

SPACE: dict[str, Values] = {"lora.r": (8, 16, 32), "train.learning_rate": (1e-4, 3e-4)}
ACCURACIES = (40, 60, 55, 75, 0, 50)
"""Right answers of each candidate in percent; the fifth one fails."""
FAILED, PRUNED = "candidate-5", "candidate-6"


def with_search(run: RunDir, accuracies: Sequence[int] = ACCURACIES) -> RunDir:
    """Write every record of a search of six candidates, of which one failed and one was stopped.

    The run's configuration gets the best one's settings, as if its training had had them.
    """
    record = read(RunRecord, run.config)
    config = with_seeds(replace(record.config, sweep=SweepConfig(SPACE, pruning=True)))
    rows = of_split(read_lines(Prediction, run.baseline_predictions), "validation")
    results = []
    for number, (one, percent) in enumerate(zip(combinations(config), accuracies, strict=True)):
        result = _candidate(run, one, _answers(rows, percent, number))
        write_record(run.candidate_result(one.name), result)
        results.append(result)
    winner = winner_of(results)
    write_record(run.winner, winner)
    config = resolved(config, winner)
    write_record(run.config, replace(record, config=config))
    mark_stages(run)
    files = [file for file in run.winner.parent.rglob("*") if file.is_file()]
    run.mark_complete("search", stage_inputs(config, STAMPS)["search"], files)
    return run


def _answers(rows: Sequence[Prediction], percent: int, number: int) -> list[Prediction]:
    """Answers of which about so many percent are right, in rows that depend on the number."""
    answers = []
    for place, row in enumerate(rows):
        is_right = (37 * place + 11 * number) % 100 < percent
        predicted = row.label if is_right else (row.label + 1) % 3
        chances = tuple(0.8 if label == predicted else 0.1 for label in range(3))
        answers.append(replace(row, predicted=predicted, probabilities=chances))
    return answers


def _candidate(run: RunDir, one: Candidate, answers: Sequence[Prediction]) -> CandidateResult:
    if one.name == FAILED:
        reason = "training diverged in epoch 1, step 3: loss nan, gradient norm nan"
        return CandidateResult(one.name, one.settings, "failed", (), None, reason, 2.0)
    score = SplitScore("validation", len(answers), sum(row.is_right for row in answers), 0.7, 0.5)
    pruned = one.name == PRUNED
    epochs = tuple(
        EpochResult(epoch, 3, 24, 0.9, 1.5, score, None, Memory(None, None))
        for epoch in ((1,) if pruned else (1, 2))
    )
    write_records(run.candidate_predictions(one.name), answers)
    return CandidateResult(
        name=one.name,
        settings=one.settings,
        state="pruned" if pruned else "complete",
        epochs=epochs,
        selection=select(epochs),
        reason="after epoch 1, below the median of the candidates before it" if pruned else "",
        duration_s=6.0,
    )
