"""What more GPUs bring: whole jobs on one GPU and on several of a host, one after the other.

    python -m benchmarks.groups --gpus 1 --gpus 2 -- --model DIR --dataset ROWS --seeds 8

What follows `--` are options of `run` for all jobs. Prints a line of JSON for each job: the seconds
from the command to its end, those of each stage and of its parts, and rows a second where rows were
scored. The first job of all warms libraries and caches and is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.records.job import Plan, ScoreResult
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir
from nlijob.trials import trials_of

ENTRYPOINT = Path(__file__).parents[1] / "entrypoint.py"


def main() -> None:
    """Run the jobs and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gpus", action="append", type=int, required=True)
    parser.add_argument("--cold", action="store_true", help="leave out the job that warms up")
    parser.add_argument("job", nargs=argparse.REMAINDER, help="-- and options of `run`")
    parser.add_argument("--runs-dir", type=Path, help="keep the runs in this folder")
    options = parser.parse_args()
    job = options.job[1:] if options.job[:1] == ["--"] else options.job
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs_dir or Path(folder)
        if not options.cold:
            _run(Path(folder) / "warm", [*job, "--seeds", "1", "--epochs", "1"], 1)
        for number, gpus in enumerate(options.gpus):
            figures = _run(runs / f"job-{number}", job, gpus)
            print(json.dumps(figures), flush=True)


def _run(run: Path, options: list[str], gpus: int) -> dict[str, Any]:
    """What a job on so many GPUs took."""
    place = ["--runs-dir", str(run.parent), "--run-id", run.name]
    command = [sys.executable, str(ENTRYPOINT), "run", *place, *options]
    began = time.monotonic()
    subprocess.run([*command, "--set", f"machine.gpus={gpus}"], check=True, stdout=sys.stderr)
    seconds = time.monotonic() - began
    folder = RunDir(run)
    results = records.read(Results, folder.results)
    first = folder.of_trial(trials_of(results.run.config)[0])
    plan = records.read(Plan, first.plan)
    baseline = records.read(ScoreResult, folder.baseline_result)
    tuned = records.read(ScoreResult, first.evaluate_result)
    return {
        "gpus": [gpu.name for gpu in results.environment.gpus] or ["cpu"],
        "processes": plan.processes,
        "share": plan.share,
        "share_reason": plan.share_reason,
        "whole_s": round(seconds, 1),
        "stages_s": {
            stage.stage: round(stage.duration_s, 2)
            for stage in results.stages
            if stage.duration_s is not None
        },
        "steps_of_one_s": round(sum(epoch.duration_s for epoch in results.epochs), 2),
        "losses": [round(epoch.train_loss, 4) for epoch in results.epochs],
        "scored_rows_per_s": {
            split: round(score.examples_per_s) for split, score in baseline.scores.items()
        },
        "tuned_scored_rows_per_s": {
            split: round(score.examples_per_s) for split, score in tuned.scores.items()
        },
        "accuracy": [results.base.accuracy, results.tuned.accuracy],
    }


if __name__ == "__main__":
    main()
