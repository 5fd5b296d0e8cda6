"""Where each second goes from the command to the first optimizer step.

    python -m benchmarks.start -- --model DIR --dataset ROWS --train-size 1001
    python -m benchmarks.start --jobs 1 -- ...    (only the first job)

What follows `--` are options of `run`. By default there are two jobs, one after the other: what the
first one leaves in caches (compiled modules and kernels, the 4-bit copy, files in memory) serves
the second. Prints a table and a line of JSON for each job. What goes on at the same time as
something else is in brackets and in no sum. Kernels are compiled within "plan".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.gpu.start_parts import CONTEXT, FROM_LAUNCH, LAUNCHER, LIBRARIES
from nlijob.records.job import Timing
from nlijob.rundir import RunDir

ENTRYPOINT = Path(__file__).parents[1] / "entrypoint.py"
STAGES = ("encode", "load", "plan", "baseline")
"""What the GPU side does between its start and the training, in this order."""


class Spent(NamedTuple):
    """What some seconds of the start were spent on."""

    name: str
    seconds: float
    is_meanwhile: bool = False
    """Whether something else went on at the same time, which has the seconds too."""


def main() -> None:
    """Run the jobs and print where their seconds went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=2, help="number of jobs (2)")
    parser.add_argument("job", nargs=argparse.REMAINDER, help="-- and options of `run`")
    options = parser.parse_args()
    job = options.job[1:] if options.job[:1] == ["--"] else options.job
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.jobs):
            run = RunDir(Path(folder) / f"job-{number}")
            began_s = time.monotonic()
            _run(run, job)
            whole_s = time.monotonic() - began_s
            timings = list(records.read_log(Timing, run.timings).records)
            _print(number, [*until_first_step(timings, began_s)], whole_s)


def until_first_step(timings: Sequence[Timing], began_s: float) -> Iterator[Spent]:
    """What the time from the command to the first optimizer step was spent on, then the whole.

    `began_s`: when the command was started, on the machine's monotonic clock.
    """
    known = {(one.stage, one.part): one for one in reversed(timings)}
    command_s = _began(known["job", "begun"])
    launch = known["start", FROM_LAUNCH]
    yield Spent("Python and the command line", command_s - began_s)
    yield Spent("parent, before it launches the GPU side", _began(launch) - command_s)
    inside_s = 0.0
    for name in (LAUNCHER, LIBRARIES):
        if one := known.get(("start", name)):
            inside_s += one.duration_s
            yield Spent(name, one.duration_s)
    if one := known.get(("start", CONTEXT)):
        yield Spent(CONTEXT, one.duration_s, is_meanwhile=True)
    yield Spent("start, the rest", launch.duration_s - inside_s)
    stages = [one for stage in STAGES if (one := known.get((stage, "")))]
    for stage in stages:
        yield Spent(stage.stage, stage.duration_s)
        for one in timings:
            if one.stage == stage.stage and one.part:
                yield Spent(f"{one.stage}: {one.part}", one.duration_s, is_meanwhile=True)
    warm_up = known["train", "warm-up"]
    yield Spent("warm-up of the training (capture of graphs)", warm_up.duration_s)
    first_s = _began(known["train", "epoch 1"])
    told_s = _began(launch) + launch.duration_s - began_s + warm_up.duration_s
    told_s += sum(stage.duration_s for stage in stages)
    yield Spent("between these", first_s - began_s - told_s)
    yield Spent("from the command to the first step", first_s - began_s, is_meanwhile=True)


def _began(timing: Timing) -> float:
    assert timing.started_monotonic_s is not None
    return timing.started_monotonic_s


def _run(run: RunDir, options: Sequence[str]) -> None:
    place = ["--runs-dir", str(run.root.parent), "--run-id", run.root.name]
    command = [sys.executable, str(ENTRYPOINT), "run", *place, *options]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _print(number: int, spent: Sequence[Spent], whole_s: float) -> None:
    *parts, total = spent
    print(f"job {number + 1}")
    for one in parts:
        shown = f"({one.seconds:.2f})" if one.is_meanwhile else f"{one.seconds:.2f} "
        print(f"{shown:>10} s  {one.name}")
    print(f"{total.seconds:>9.2f}  s  {total.name}; {whole_s:.2f} s in all")
    figures = {one.name: round(one.seconds, 3) for one in spent}
    print(json.dumps({"job": number + 1, **figures, "whole job": round(whole_s, 3)}), flush=True)


if __name__ == "__main__":
    main()
