"""The bench runs where there is no GPU: the plain way alone, on the demo's model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import jobs


def test_the_bench_writes_figures_and_curves(tmp_path: Path) -> None:
    options = ("--train-size", "24", "--plain-steps", "2", "--out", str(tmp_path))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *options],
        cwd=jobs.ROOT,
        env=jobs.environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        check=True,
        timeout=300,
    )
    (figures,) = tmp_path.glob("*-cpu-ways.json")
    plain = json.loads(figures.read_text())["ways"]["plain"]
    assert plain["training_examples_per_s"] > 0
    assert plain["scoring_examples_per_s"] > 0
    assert len(plain["losses"]) == 2
    assert figures.with_suffix(".png").is_file()
