"""Results of synthetic runs for the tests of the view, each computed once."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from nlijob.analysis.outcome import build_results
from nlijob.config import ReportConfig
from nlijob.records.outcome import Results
from tests.searched import with_search
from tests.several import build_several, do_side_by_side
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


def side_by_side() -> Results:
    """The results of a synthetic run whose four trainings were done on two GPUs."""
    if "side by side" not in _measured:
        with tempfile.TemporaryDirectory() as folder:
            prices = ReportConfig(gpu_prices_per_hour={"H200": 3.2})
            small = Spec(gpus=2, rows=8, train_rows=8, epochs=1, few_shot=0, forgets=None)
            spec = replace(small, generations=False, word_importance=False, report=prices)
            run = build_several(Path(folder), spec, (42, 43, 44, 45))
            do_side_by_side(run)
            _measured["side by side"] = build_results(run)
    return _measured["side by side"]
