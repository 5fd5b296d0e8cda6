"""A search for settings, measured on the validation rows that chose among its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from nlijob.analysis.clustered import accuracy_interval, paired_difference, premises_as_units
from nlijob.analysis.premises import Premises, premises_of
from nlijob.analysis.statistics import holm
from nlijob.config import JobConfig
from nlijob.records.intervals import PairedDifference
from nlijob.records.job import Example, Prediction
from nlijob.records.outcome import SIGNIFICANT
from nlijob.records.search import (
    CandidateOutcome,
    CandidateResult,
    Importance,
    Search,
    Setting,
    Winner,
)
from nlijob.records.serialization import read, read_all, read_lines
from nlijob.rundir import RunDir
from nlijob.sweep import candidate_name, resolved, winner_of

FEWEST_A_GROUP = 2
"""Candidates for each value of a setting, on average, before its importance is measured."""
THIRDS = 3


def measure_search(run: RunDir, config: JobConfig) -> Search | None:
    """The search of a finished run; None where it has none.

    Raises OSError where a record is missing, ValueError where one is damaged or where records
    contradict each other.
    """
    if not config.sweep.space:
        return None
    winner, results = read(Winner, run.winner), read_candidates(run, config)
    if winner_of(results) != winner or resolved(config, winner) != config:
        raise ValueError("search/winner.json, the candidates and config.json contradict each other")
    answers = {one.name: _answers(run, one) for one in results if one.epochs}
    premises = premises_of(read_lines(Example, run.subset("validation")))
    return _search(config, winner, results, answers, premises)


def read_candidates(run: RunDir, config: JobConfig) -> list[CandidateResult]:
    """The result of each candidate of the search, in order; raises as `measure_search`."""
    if not config.sweep.space:
        return []
    names = map(candidate_name, range(1, read(Winner, run.winner).candidates + 1))
    return [read(CandidateResult, run.candidate_result(name)) for name in names]


def _answers(run: RunDir, result: CandidateResult) -> dict[int, bool]:
    """Row number -> whether the candidate is right, after its selected epoch."""
    rows = read_all(Prediction, run.candidate_predictions(result.name))
    right = {row.index: row.is_right for row in rows if row.split == "validation"}
    score = next(
        epoch.validation
        for epoch in result.epochs
        if result.selection and epoch.epoch == result.selection.epoch
    )
    if (len(right), sum(right.values())) != (score.rows, score.correct) or len(rows) != len(right):
        raise ValueError(f"the answers of {result.name} are not those that its result counts")
    return right


def _search(
    config: JobConfig,
    winner: Winner,
    results: Sequence[CandidateResult],
    answers: Mapping[str, Mapping[int, bool]],
    premises: Premises,
) -> Search:
    complete = [one for one in results if one.state == "complete"]
    behind = _behind(winner.name, [one.name for one in complete], answers, premises)
    adjusted = dict(
        zip(behind, holm([change.mcnemar_p for change in behind.values()]), strict=True)
    )
    rows = answers[winner.name]
    return Search(
        chosen_by="combinations" if config.sweep.trials is None else "optuna",
        seed=config.sweep.seed or 0,
        candidates=tuple(
            _outcome(one, answers.get(one.name), premises, len(rows), behind, adjusted)
            for one in results
        ),
        winner=winner.name,
        rule=winner.rule,
        alike=tuple(name for name, p in adjusted.items() if p >= SIGNIFICANT),
        importance=importance(
            [one.settings for one in complete],
            [fmean(answers[one.name].values()) for one in complete],
            [key for key, values in config.sweep.space.items() if isinstance(values, str)],
        ),
        duration_s=sum(one.duration_s for one in results),
        premises=premises_as_units([premises[row] for row in rows]),
    )


def _behind(
    best: str,
    names: Iterable[str],
    answers: Mapping[str, Mapping[int, bool]],
    premises: Premises,
) -> dict[str, PairedDifference]:
    """The best candidate compared with each other one that is complete, by its name."""
    own = answers[best]
    found = {}
    for name in names:
        if name == best:
            continue
        other = answers[name]
        if own.keys() != other.keys():
            raise ValueError(f"{best} and {name} answered different validation rows")
        right = [other[row] for row in own]
        found[name] = paired_difference([*own.values()], right, [premises[row] for row in own])
    return found


def _outcome(
    result: CandidateResult,
    right: Mapping[int, bool] | None,
    premises: Premises,
    rows: int,
    behind: Mapping[str, PairedDifference],
    adjusted: Mapping[str, float],
) -> CandidateOutcome:
    return CandidateOutcome(
        name=result.name,
        settings=result.settings,
        state=result.state,
        reason=result.reason,
        epochs=len(result.epochs),
        selection=result.selection,
        rows=rows,
        correct=sum(right.values()) if right else None,
        accuracy_interval=accuracy_interval([*right.values()], [premises[row] for row in right])
        if right
        else None,
        behind=behind.get(result.name),
        adjusted_p=adjusted.get(result.name),
        duration_s=result.duration_s,
    )


def importance(
    settings: Sequence[Mapping[str, Setting]],
    accuracies: Sequence[float],
    ranges: Sequence[str],
) -> tuple[Importance, ...]:
    """Share of the variance of the accuracies that each setting explains by itself (eta squared).

    `ranges`: the settings with so many values that thirds of the candidates, in the order of their
    values, are compared. A setting with too few candidates for its values is left out.
    """
    mean = fmean(accuracies)
    whole = sum((one - mean) ** 2 for one in accuracies)
    found = _shares(settings, accuracies, ranges, whole) if whole > 0 else ()
    return tuple(sorted(found, key=lambda one: -one.share))


def _shares(
    settings: Sequence[Mapping[str, Setting]],
    accuracies: Sequence[float],
    ranges: Sequence[str],
    whole: float,
) -> Iterator[Importance]:
    mean, number = fmean(accuracies), len(accuracies)
    for key in settings[0]:
        values = [one[key] for one in settings]
        in_thirds = key in ranges
        labels = _thirds(values) if in_thirds else values
        groups: dict[Setting, list[float]] = {}
        for label, accuracy in zip(labels, accuracies, strict=True):
            groups.setdefault(label, []).append(accuracy)
        if len(groups) < 2 or number < FEWEST_A_GROUP * len(groups):
            continue
        between = sum(len(group) * (fmean(group) - mean) ** 2 for group in groups.values())
        share = min(1.0, between / whole)
        by_chance = (len(groups) - 1) / (number - 1)
        yield Importance(key, len(groups), share, by_chance, in_thirds)


def _thirds(values: Sequence[Setting]) -> list[Setting]:
    """The third, from 0, in which each value is in ascending order; equal values are in one."""
    ranked = sorted(values, key=float)
    return [THIRDS * ranked.index(value) // len(ranked) for value in values]
