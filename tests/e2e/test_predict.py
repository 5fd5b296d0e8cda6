"""`predict` on a finished run, in processes as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlijob import records
from nlijob.records.job import Example, Prediction, of_split
from nlijob.records.use import AdapterRecord
from nlijob.rundir import RunDir
from tests import jobs


@pytest.mark.slow
def test_predictions_of_the_runs_adapter_equal_the_runs_records_row_by_row(
    job: RunDir, tmp_path: Path
) -> None:
    rows = list(records.read_lines(Example, job.subset("test")))
    source = tmp_path / "rows.jsonl"
    lines = (json.dumps({"premise": r.premise, "hypothesis": r.hypothesis}) for r in rows)
    source.write_text("\n".join(lines), encoding="utf-8")
    done = jobs.run("predict", job.adapter, source)
    assert done.returncode == 0, done.stderr
    names = records.read(AdapterRecord, job.adapter_record).config.data.label_names
    found = [
        (row["predicted_label"], tuple(row[f"probability_{name}"] for name in names))
        for row in map(json.loads, done.stdout.splitlines())
    ]
    recorded = of_split(records.read_lines(Prediction, job.evaluate_predictions), "test")
    assert found == [(names[row.predicted], row.probabilities) for row in recorded]
