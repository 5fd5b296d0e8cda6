"""Results of synthetic runs for the tests of the view, each computed once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nlijob.analysis.outcome import build_results
from nlijob.records.outcome import Results
from tests.searched import with_search
from tests.synthetic import Spec, build_run
from tests.trainings import SEEDS, with_trainings

_measured: dict[str, Results] = {}


def outcome(spec: Spec) -> Results:
    """The results of a synthetic run; its folder is temporary."""
    key = repr(spec)
    if key not in _measured:
        with tempfile.TemporaryDirectory() as folder:
            _measured[key] = build_results(build_run(Path(folder), spec))
    return _measured[key]


def searched() -> Results:
    """The results of a synthetic run with a search and one training."""
    if "search" not in _measured:
        with tempfile.TemporaryDirectory() as folder:
            _measured["search"] = build_results(with_search(build_run(Path(folder), Spec())))
    return _measured["search"]


def several_trainings(seeds: tuple[int, ...] = SEEDS) -> Results:
    """The results of a synthetic run with several trainings; the second one's adapter is kept."""
    key = f"trainings {seeds}"
    if key not in _measured:
        with tempfile.TemporaryDirectory() as folder:
            run = build_run(Path(folder), Spec())
            _measured[key] = with_trainings(outcome(Spec()), run, seeds)
    return _measured[key]
