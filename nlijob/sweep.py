"""The search of a run: its candidates, and the configuration that follows from its outcome.

A candidate is a training whose figures are those of a run with its settings and seed alone. The
search trains all candidates with one seed, which is none of the run's own: these train anew, with
the settings of the best one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from nlijob.analysis.selection import best_of
from nlijob.config import EvalConfig, JobConfig, SweepConfig, with_settings
from nlijob.errors import DivergedError, HardwareError, JobError
from nlijob.fingerprints import stage_inputs
from nlijob.memory import speaks_of_memory
from nlijob.records.job import EpochResult, Inputs
from nlijob.records.search import CandidateResult, Setting, Winner
from nlijob.space import bounds_of

RULE = (
    "highest validation accuracy of the selected epoch among the candidates that were trained to "
    "their end; on a tie the lower validation loss, then the earlier candidate"
)
FEWEST_BEFORE_PRUNING = 3
"""Candidates with an epoch before one is stopped after it: a median of fewer says little."""


@dataclass(frozen=True)
class Candidate:
    """One training of a search."""

    name: str
    """Such as "candidate-3"; also the name of its folder."""
    settings: dict[str, Setting]
    config: JobConfig
    """The configuration of a run that does this training alone."""


def candidate(config: JobConfig, number: int, settings: Mapping[str, Setting]) -> Candidate:
    """The candidate with these settings; numbers count from 1."""
    own = with_settings(config, settings)
    train = dataclasses.replace(own.train, seed=config.sweep.seed or 0, seeds=1)
    scoring: EvalConfig = dataclasses.replace(own.eval, test_each_epoch=False)
    own = dataclasses.replace(own, train=train, eval=scoring, sweep=SweepConfig())
    settings = {key: own.value(key) for key in settings}
    return Candidate(candidate_name(number), settings, own)


def candidate_name(number: int) -> str:
    """The name of a candidate of the search; numbers count from 1."""
    return f"candidate-{number}"


def combinations(config: JobConfig) -> tuple[Candidate, ...]:
    """A candidate for each combination of the listed values.

    Those that share what is prepared for them (see `shape_of`) follow each other.
    """
    space = config.sweep.space
    each = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    shapes = [shape_of(with_settings(config, settings)) for settings in each]
    order = sorted(range(len(each)), key=lambda place: shapes.index(shapes[place]))
    return tuple(candidate(config, n, each[place]) for n, place in enumerate(order, 1))


def shape_of(config: JobConfig) -> tuple[Any, ...]:
    """What trainings must have in common so that adapter, packs and graphs serve them all."""
    train = config.train
    return config.lora, train.batch_size, train.weight_decay, train.max_grad_norm


def are_independent(sweep: SweepConfig) -> bool:
    """Whether no candidate of a search depends on those before it, so that all may be trained at
    once."""
    return sweep.trials is None and not sweep.pruning


def count_candidates(config: JobConfig) -> int:
    """Number of candidates of the search; Optuna may find fewer that differ. 0 without a search."""
    space, trials = config.sweep.space, config.sweep.trials
    if not space or trials is not None:
        return trials or 0
    return math.prod(len(values) for values in space.values())


def search_epochs(config: JobConfig) -> int:
    """Epochs of all candidates together, if none is stopped early; at most, if Optuna chooses."""
    candidates, values = count_candidates(config), config.sweep.space.get("train.epochs")
    if config.sweep.trials is not None or values is None:
        return candidates * most_epochs(config)
    return candidates * sum(map(int, values)) // len(values)


def most_epochs(config: JobConfig) -> int:
    """Epochs of a training of the run; the most of those searched, if they are."""
    values = config.sweep.space.get("train.epochs")
    if values is None:
        return config.train.epochs
    return max(map(int, bounds_of("train.epochs", values) if isinstance(values, str) else values))


def candidate_inputs(one: Candidate, sweep: SweepConfig, stamps: Mapping[str, str]) -> Inputs:
    """What a candidate's result is made from: the inputs of its training in a run of its own."""
    of_training = stage_inputs(one.config, stamps)["train"]
    settings = {**of_training.settings, "sweep.pruning": sweep.pruning}
    return dataclasses.replace(of_training, settings=settings)


def is_of_search(made_from: Inputs | None, config: JobConfig, stamps: Mapping[str, str]) -> bool:
    """Whether a candidate's result is of this search, with whatever settings it chose."""
    if made_from is None:
        return False
    now = candidate_inputs(candidate(config, 1, {}), config.sweep, stamps)
    one, other = (
        {key: value for key, value in inputs.settings.items() if key not in config.sweep.space}
        for inputs in (made_from, now)
    )
    return (one, made_from.follows, made_from.stamp) == (other, now.follows, now.stamp)


def is_behind(epochs: Sequence[EpochResult], earlier: Iterable[CandidateResult]) -> bool:
    """Whether a candidate's best validation accuracy so far is below the earlier ones' median.

    Each counts with its best accuracy up to the same epoch; one that did not get there does not
    count.
    """
    number = len(epochs)
    others = [_best(one.epochs[:number]) for one in earlier if len(one.epochs) >= number]
    return len(others) >= FEWEST_BEFORE_PRUNING and _best(epochs) < median(others)


def _best(epochs: Sequence[EpochResult]) -> float:
    return max(epoch.validation.accuracy for epoch in epochs)


def winner_of(results: Sequence[CandidateResult]) -> Winner:
    """The settings to take, by `RULE`.

    Where no candidate is complete, raises HardwareError if memory was the reason for one of them,
    and DivergedError otherwise.
    """
    selections = {
        one.name: one.selection
        for one in results
        if one.state == "complete" and one.selection is not None
    }
    if not selections:
        raise _none_complete(results)
    best = best_of(selections)
    settings = next(one.settings for one in results if one.name == best)
    return Winner(best, settings, RULE, len(results))


def _none_complete(results: Sequence[CandidateResult]) -> JobError:
    none = f"none of the {len(results)} candidates of the search could be trained to its end: "
    for one in results:
        if speaks_of_memory(one.reason):
            return HardwareError(
                none + one.reason,
                "search lower values of lora.r or train.batch_size, or use shorter prompts, a "
                "smaller model or a larger GPU",
            )
    return DivergedError(
        none + results[0].reason,
        "search lower values of train.learning_rate, or compute in bfloat16 or float32 "
        "(model.compute_dtype)",
    )


def resolved(config: JobConfig, winner: Winner) -> JobConfig:
    """The configuration of the run's own trainings: with the settings of the best candidate."""
    return with_settings(config, winner.settings)
