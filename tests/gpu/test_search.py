"""Candidates of a search on a GPU: graphs are used again, and adapters of other shapes replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nlijob import records
from nlijob.records.job import Plan, Timing
from nlijob.records.search import CandidateResult
from nlijob.rundir import RunDir
from tests import jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SEARCH = (
    *("--sweep", "lora.r=4,8", "--sweep", "train.learning_rate=1e-3,3e-3,1e-2"),
    *("--epochs", "2", "--set", "train.speed=graph", "--set", "lora.dropout=0.0"),
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("runs")
    job, _ = jobs.run_job(folder, *jobs.SMALL_DEMO, "--device", "cuda", *SEARCH)
    return job


def result(run: RunDir, number: int) -> CandidateResult:
    return records.read(CandidateResult, run.candidate_result(f"candidate-{number}"))


def test_candidates_train_as_a_run_of_their_own_up_to_rounding(job: RunDir, tmp_path: Path) -> None:
    for number in (3, 4):  # the last of the first shape, and the first of the second
        one = result(job, number)
        settings = [("--set", f"{key}={value}") for key, value in one.settings.items()]
        options = [*("--epochs", "2", "--set", "train.speed=graph", "--set", "lora.dropout=0.0")]
        options += [part for pair in settings for part in pair]
        alone, _ = jobs.run_job(
            tmp_path / str(number), *jobs.SMALL_DEMO, "--device", "cuda", "--seed", "1042", *options
        )
        expected = [epoch.train_loss for epoch in jobs.results(alone).epochs]
        assert [epoch.train_loss for epoch in one.epochs] == pytest.approx(expected, rel=0.05)


def test_shapes_are_prepared_once_and_graphs_are_used(job: RunDir) -> None:
    parts = [line.part for line in records.read_log(Timing, job.timings).records]
    assert parts.count("adapter replaced") <= 3
    assert records.read(Plan, job.plan).way == "graph"
