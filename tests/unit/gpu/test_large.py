"""The benchmark of large training sets does what the job does with its rows."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks import large, large_worker
from nlijob import records
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.records.job import Manifest


def test_every_side_takes_all_rows(tmp_path: Path) -> None:
    large.write_multiplied(DATA_DIR, tmp_path, rows=50)
    assert large.subset(tmp_path)["subset_cpu_s"] >= 0
    worker = large_worker.measured(MODEL_DIR, tmp_path)
    rows = records.read(Manifest, large.run_in(tmp_path).manifest).splits["train"].rows
    assert worker["steps"] == math.ceil(rows / 8)
    assert worker["encode_peak_mb"] >= worker["imported_mb"]
    assert large.report(tmp_path)["chart_kb"] > 0
