"""Which candidate of a search comes next, where Optuna chooses."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import pytest

from nlijob.analysis.selection import select
from nlijob.config import JobConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.proposals import check_optuna, proposals
from nlijob.records.job import EpochResult, Memory, SplitScore
from nlijob.records.search import CandidateResult, State
from nlijob.space import Values
from nlijob.sweep import Candidate

SPACE: dict[str, Values] = {"lora.r": (8, 16), "train.learning_rate": "1e-5..1e-3:log"}

with_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="Optuna is not installed (extra sweep)"
)


def searched(trials: int | None = 14, **more: Any) -> JobConfig:
    return load_config("demo", {"sweep.space": SPACE, "sweep.trials": trials, **more})


def result(one: Candidate, accuracy: float, state: State = "complete") -> CandidateResult:
    score = SplitScore("validation", 1000, round(1000 * accuracy), 1.0, 0.1)
    epoch = EpochResult(1, 3, 24, 0.9, 1.5, score, None, Memory(None, None))
    epochs = () if state == "failed" else (epoch,)
    chosen = select(epochs) if epochs else None
    return CandidateResult(one.name, one.settings, state, epochs, chosen, "", 1.0)


def accuracy_of(one: Candidate) -> float:
    """Best at a learning rate of 1e-4."""
    return 0.9 - 0.2 * abs(math.log10(one.config.train.learning_rate) + 4)


def search(config: JobConfig, states: Sequence[State] = ()) -> list[CandidateResult]:
    """A search whose candidates end so; those after them are complete."""
    results: list[CandidateResult] = []
    propose = proposals(config)
    while one := propose(results):
        state = states[len(results)] if len(results) < len(states) else "complete"
        results.append(result(one, accuracy_of(one), state))
    return results


def test_a_search_for_which_optuna_is_missing_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="Optuna") as caught:
        check_optuna(searched())
    assert "pip install 'nlijob[sweep]'" in caught.value.hint
    check_optuna(load_config("demo", {"sweep.space": {"lora.r": (8, 16)}}))
    check_optuna(load_config("demo"))


@with_optuna
def test_candidates_are_within_the_space_and_all_differ() -> None:
    found = search(searched())
    assert len(found) == 14
    assert all(one.settings["lora.r"] in (8, 16) for one in found)
    assert all(1e-5 <= float(one.settings["train.learning_rate"]) <= 1e-3 for one in found)
    assert len({tuple(one.settings.values()) for one in found}) == 14


@with_optuna
def test_a_search_that_was_stopped_goes_on_as_it_would_have() -> None:
    whole = search(searched())
    for done in (0, 3, 11):
        following = proposals(searched())(whole[:done])
        assert following is not None
        assert following.settings == whole[done].settings


@with_optuna
def test_a_search_that_is_asked_for_more_candidates_begins_alike() -> None:
    assert search(searched(8)) == search(searched(12))[:8]


@with_optuna
def test_another_seed_gives_other_candidates() -> None:
    assert search(searched(3))[0].settings != search(searched(3, **{"sweep.seed": 7}))[0].settings


@with_optuna
def test_stopped_and_failed_candidates_are_taken_into_account() -> None:
    found = search(searched(13), ["failed", "pruned", "failed", "complete", "pruned"])
    assert len(found) == 13


@with_optuna
def test_a_space_of_which_all_is_tried_ends_the_search() -> None:
    config = load_config("demo", {"sweep.space": {"lora.r": "2..4"}, "sweep.trials": 9})
    found = [one.settings["lora.r"] for one in search(config)]
    assert sorted(found) == [2, 3, 4]
