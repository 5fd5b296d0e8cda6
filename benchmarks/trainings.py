"""What a further training of a run costs, and what a search costs: whole jobs, one after the other.

    python -m benchmarks.trainings --seeds 5 -- --model DIR --dataset ROWS --train-size 1001
    python -m benchmarks.trainings --sweep lora.r=16,32 --sweep train.learning_rate=1e-4,2e-4 -- ...

What follows `--` are options of `run` for all jobs. The first job warms libraries and caches, then
come one with one training and one with all. Prints a line of JSON. Seconds are from the command to
its end, the report included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.origin import origin
from nlijob import records
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir
from nlijob.sweep import count_candidates

ENTRYPOINT = Path(__file__).parents[1] / "entrypoint.py"


def main() -> None:
    """Run the jobs and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of the last job")
    parser.add_argument("--sweep", action="append", default=[], help="as for `run`")
    parser.add_argument("job", nargs=argparse.REMAINDER, help="-- and options of `run`")
    options = parser.parse_args()
    job = options.job[1:] if options.job[:1] == ["--"] else options.job
    many = ["--seeds", str(options.seeds)]
    for space in options.sweep:
        many += ["--sweep", space]
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        _run(runs, "warm", job)
        one_s, one = _run(runs, "one", job)
        many_s, all_ = _run(runs, "many", [*job, *many])
    further = options.seeds - 1 + count_candidates(all_.run.config)
    figures: dict[str, Any] = {
        **origin("benchmarks.trainings", "options of `run`", sys.argv[1:]),
        "device": [gpu.name for gpu in all_.environment.gpus] or "cpu",
        "one_training_s": round(one_s, 1),
        "all_s": round(many_s, 1),
        "further_trainings": further,
        "a_further_one_s": round((many_s - one_s) / further, 2) if further else None,
        "steps_of_one_s": round(sum(epoch.duration_s for epoch in one.epochs), 2),
        "stages_s": {"one": _stages(one), "all": _stages(all_)},
    }
    print(json.dumps(figures))


def _run(runs: Path, name: str, options: Sequence[str]) -> tuple[float, Results]:
    """The seconds that a job took, and its outcome."""
    command = [sys.executable, str(ENTRYPOINT), "run", "--runs-dir", str(runs), "--run-id", name]
    began = time.monotonic()
    subprocess.run([*command, *options], check=True, stdout=sys.stderr)
    seconds = time.monotonic() - began
    return seconds, records.read(Results, RunDir(runs / name).results)


def _stages(results: Results) -> dict[str, float]:
    known = {stage.stage: stage.duration_s for stage in results.stages}
    return {name: round(seconds, 2) for name, seconds in known.items() if seconds is not None}


if __name__ == "__main__":
    main()
