"""`predict` and `export` of a run that was made on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nlijob import records
from nlijob.records.job import Example, Prediction, of_split
from nlijob.records.use import ExportRecord
from nlijob.rundir import RunDir
from tests import jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
ROUNDING = 0.02
"""Probabilities in bfloat16, whose steps are 1/256, may differ by a few of these."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    job, _ = jobs.run_job(tmp_path_factory.mktemp("runs"), *jobs.SMALL_DEMO, "--device", "cuda")
    return job


@pytest.fixture(scope="module")
def recorded(job: RunDir) -> list[Prediction]:
    return of_split(records.read_lines(Prediction, job.evaluate_predictions), "test")


def test_predictions_equal_the_runs_records_up_to_rounding(
    job: RunDir, recorded: list[Prediction], tmp_path: Path
) -> None:
    rows = records.read_lines(Example, job.subset("test"))
    source = tmp_path / "rows.jsonl"
    lines = (json.dumps({"premise": r.premise, "hypothesis": r.hypothesis}) for r in rows)
    source.write_text("\n".join(lines), encoding="utf-8")
    done = jobs.run("predict", job.root, source, "--device", "cuda")
    assert done.returncode == 0, done.stderr
    names = ("entailment", "neutral", "contradiction")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    probabilities = [tuple(row[f"probability_{name}"] for name in names) for row in found]
    for row, own in zip(recorded, probabilities, strict=True):
        assert own == pytest.approx(row.probabilities, abs=ROUNDING)


def test_a_merged_model_answers_nearly_as_the_run_did(
    job: RunDir, recorded: list[Prediction], tmp_path: Path
) -> None:
    done = jobs.run("export", job.root, tmp_path / "merged", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    record = records.read(ExportRecord, tmp_path / "merged" / "nlijob-export.json")
    assert record.dtype == (
        "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    )
    assert record.same_answers is not None
    # the weights are rounded to bfloat16, so rows with nearly equal probabilities may turn
    close = sum(
        sorted(row.probabilities)[-1] - sorted(row.probabilities)[-2] < 0.1 for row in recorded
    )
    assert record.same_answers >= len(recorded) - close
