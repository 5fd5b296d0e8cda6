"""`export` on a finished run, and the script of its card; slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nlijob import records
from nlijob.records.job import Example, Prediction, of_split
from nlijob.records.use import ExportRecord
from nlijob.report.export_card import merged_snippet
from nlijob.rundir import RunDir
from tests import jobs

pytestmark = pytest.mark.slow


def test_a_merged_model_and_its_cards_script_answer_as_the_run_did(
    job: RunDir, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    done = jobs.run("export", job.root, out)
    assert done.returncode == 0, done.stderr
    record = records.read(ExportRecord, out / "nlijob-export.json")
    assert record.export_test is not None
    # Weights of a 4-bit model in float32 differ by rounding alone; so may answers that are ties.
    assert record.same_answers is not None
    assert record.same_answers >= record.run_test.rows - 1
    script = merged_snippet(jobs.results(job), record.dtype)
    assert script in (out / "README.md").read_text("utf-8")

    rows = list(records.read_lines(Example, job.subset("test")))[:20]
    asked = "".join(f"\nprint(predict({row.premise!r}, {row.hypothesis!r}))" for row in rows)
    printed = subprocess.run(
        [sys.executable, "-c", script + asked],
        cwd=out,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    names = jobs.results(job).manifest.label_names
    recorded = of_split(records.read_lines(Prediction, job.evaluate_predictions), "test")
    expected = [names[row.predicted] for row in recorded[:20]]
    answers = printed.stdout.splitlines()[1:]
    assert sum(a == b for a, b in zip(answers, expected, strict=True)) >= 19
