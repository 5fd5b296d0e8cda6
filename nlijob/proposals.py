"""Which candidate of a search comes next: the next combination, or Optuna's choice.

Optuna's choice depends on the search's seed and on the results so far alone, which are in the run's
folder. So a search that was stopped goes on as it would have.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nlijob.config import JobConfig, SweepConfig
from nlijob.errors import ConfigurationError
from nlijob.records.search import CandidateResult, Setting
from nlijob.space import SEARCHED, Values, bounds_of, read_range
from nlijob.sweep import Candidate, candidate, combinations

Proposals = Callable[[Sequence[CandidateResult]], Candidate | None]
"""The results so far -> the next candidate; None once there is none."""
MOST_REPEATED = 20
"""Choices in a row that were tried already, after which a search ends early."""
SEED_STEP = 1_000_003
MOST_SAMPLER_SEED = 2**32
PENALTY = -1.0
"""What a candidate that diverged counts as: less than every accuracy."""


def check_optuna(config: JobConfig) -> None:
    """Raise ConfigurationError where a search needs Optuna and it is not installed."""
    if config.sweep.trials is not None and importlib.util.find_spec("optuna") is None:
        raise ConfigurationError(
            "sweep.trials: Optuna chooses the candidates, and it is not installed",
            "pip install 'nlijob[sweep]' or pip install optuna; without a number of trials, all "
            "combinations of listed values are tried",
        )


def proposals(config: JobConfig) -> Proposals:
    """What proposes the candidates of a search, in order."""
    if config.sweep.trials is not None:
        return lambda results: _chosen(config, results)
    each = combinations(config)
    return lambda results: each[len(results)] if len(results) < len(each) else None


def _chosen(config: JobConfig, results: Sequence[CandidateResult]) -> Candidate | None:
    """Optuna's next choice; None after the last one, or where it chooses nothing new any more."""
    if len(results) >= (config.sweep.trials or 0):
        return None
    tried = [one.settings for one in results]
    for again in range(MOST_REPEATED):
        found = candidate(config, len(results) + 1, _asked(config.sweep, results, again))
        if found.settings not in tried:
            return found
    return None


def _asked(
    sweep: SweepConfig, results: Sequence[CandidateResult], again: int
) -> dict[str, Setting]:
    """The settings that the tree-structured Parzen estimator chooses after these results."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = (sweep.seed or 0) * SEED_STEP + len(results)
    seed = place * MOST_REPEATED + again
    sampler = optuna.samplers.TPESampler(seed=seed % MOST_SAMPLER_SEED)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {key: _distribution(key, values) for key, values in sweep.space.items()}
    for one in results:
        study.add_trial(_as_trial(one, distributions))
    return dict(study.ask(distributions).params)


def _as_trial(result: CandidateResult, distributions: Mapping[str, Any]) -> Any:
    """A result as Optuna knows it, by the best accuracy of the epochs that were done."""
    import optuna

    accuracies = [epoch.validation.accuracy for epoch in result.epochs]
    is_pruned = result.state == "pruned"
    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state=states.PRUNED if is_pruned else states.COMPLETE,
        value=PENALTY if result.state == "failed" else max(accuracies),
        params=dict(result.settings),
        distributions=dict(distributions),
        intermediate_values={n: max(accuracies[:n]) for n in range(1, len(accuracies) + 1)}
        if is_pruned
        else {},
    )


def _distribution(key: str, values: Values) -> Any:
    """The values of a setting as Optuna has them."""
    import optuna

    if not isinstance(values, str):
        kind = SEARCHED[key]
        return optuna.distributions.CategoricalDistribution([kind(value) for value in values])
    low, high = bounds_of(key, values)
    is_log = read_range(values).is_log
    if SEARCHED[key] is int:
        return optuna.distributions.IntDistribution(low, high, log=is_log)
    return optuna.distributions.FloatDistribution(low, high, log=is_log)
