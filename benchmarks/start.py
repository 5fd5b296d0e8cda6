"""Where each second of a whole job goes, with empty caches and with filled ones.

    python -m benchmarks.start -- --model DIR --dataset ROWS --train-size 1001
    python -m benchmarks.start --jobs 1 -- ...    (only the first job)
    python -m benchmarks.start --empty-caches --shape phi-2 --out benchmarks/results -- ...

What follows `--` are options of `run`. By default there are two jobs, one after the other: what the
first one leaves in caches (compiled modules and kernels, the 4-bit copy, files in memory) serves
the second. With `--empty-caches` the first job finds none of its own caches on disk; what the
system holds of files in memory, and modules compiled at installation, stay as they are.

Prints a table and a line of JSON for each job, up to the first optimizer step. What goes on at the
same time as something else is in brackets and in no sum. Kernels are compiled within "plan".
`--out` writes a file for the table of measured runs as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.origin import origin
from nlijob import records
from nlijob.gpu.start_parts import CONTEXT, FROM_LAUNCH, LAUNCHER, LIBRARIES
from nlijob.records.job import Timing, WorkerStart
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir

ENTRYPOINT = Path(__file__).parents[1] / "entrypoint.py"
STAGES = ("encode", "load", "plan", "baseline")
"""What the GPU side does between its start and the training, in this order."""
CACHES = ("HF_HOME", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that name the folders in which a job and its libraries keep what they prepared."""
WHOLE = "from the command to the first step"


class Spent(NamedTuple):
    """What some seconds of the start were spent on."""

    name: str
    seconds: float
    is_meanwhile: bool = False
    """Whether something else went on at the same time, which has the seconds too."""


def main() -> None:
    """Run the jobs and print where their seconds went."""
    options = _options()
    job = options.job[1:] if options.job[:1] == ["--"] else options.job
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.shape:
            making = [sys.executable, "-m", "benchmarks.shapes", options.shape, f"{place}/model"]
            subprocess.run(making, check=True)
            job = ["--model", f"{place}/model", *job]
        caches = {name: f"{place}/{name}" for name in CACHES if options.empty_caches}
        jobs = []
        for number in range(options.jobs):
            run = RunDir(place / f"job-{number}")
            began_s = time.monotonic()
            _run(run, job, caches)
            whole_s = time.monotonic() - began_s
            timings = list(records.read_log(Timing, run.timings).records)
            spent = [*until_first_step(timings, began_s)]
            _print(number, spent, whole_s)
            _print_use(records.read(WorkerStart, run.worker_start))
            results = records.read(Results, run.results)
            jobs.append(figures_of(results, spent, whole_s, _state(number, options.empty_caches)))
    if options.out:
        name = options.name or (f"{options.shape}'s shape" if options.shape else "options of `run`")
        head = origin("benchmarks.start", name, sys.argv[1:])
        _write(options.out, options.name or options.shape, {**head, **_machine(results)}, jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=2, help="number of jobs (2)")
    parser.add_argument("--shape", help="a model of this shape with random weights")
    parser.add_argument("--name", help="what the model is called in the table and the file's name")
    parser.add_argument("--empty-caches", action="store_true", help="caches of their own")
    parser.add_argument("--out", type=Path, help="folder for the file of results")
    parser.add_argument("job", nargs=argparse.REMAINDER, help="-- and options of `run`")
    return parser.parse_args()


def figures_of(
    results: Results, spent: Sequence[Spent], whole_s: float, caches: str
) -> dict[str, Any]:
    """What the table of measured runs says of a job, and what its seconds were spent on.

    `whole_s`: from the command to its end, the page included; `caches`: the state they were in.
    """
    return {
        "caches": caches,
        "whole_s": round(whole_s, 3),
        "to_first_step_s": next(round(one.seconds, 3) for one in spent if one.name == WHOLE),
        "training_examples_per_s": results.training_examples_per_s,
        "spent_s": {one.name: round(one.seconds, 3) for one in spent if not one.is_meanwhile},
        "stages_s": {stage.stage: stage.duration_s for stage in results.stages},
    }


def _state(number: int, are_empty: bool) -> str:
    if number:
        return "caches of the job before"
    return "empty caches" if are_empty else "caches as they were"


def _machine(results: Results) -> dict[str, Any]:
    environment = results.environment
    return {
        "device": [gpu.name for gpu in environment.gpus] or "CPU",
        "cpu": f"{environment.cpu_count} cores of {environment.cpu_name}",
    }


def _write(
    folder: Path, name: str | None, head: Mapping[str, Any], jobs: Sequence[dict[str, Any]]
) -> None:
    cards = head["device"] if isinstance(head["device"], list) else [head["device"]]
    parts = [head["date"], cards[0].lower().replace(" ", "-"), "jobs", *[name or ""] * bool(name)]
    text = json.dumps({**head, "whole_jobs": jobs}, indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{'-'.join(parts)}.json").write_text(text, encoding="utf-8")


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
    yield Spent(WHOLE, first_s - began_s, is_meanwhile=True)


def _began(timing: Timing) -> float:
    assert timing.started_monotonic_s is not None
    return timing.started_monotonic_s


def _run(run: RunDir, options: Sequence[str], variables: Mapping[str, str]) -> None:
    place = ["--runs-dir", str(run.root.parent), "--run-id", run.root.name]
    command = [sys.executable, str(ENTRYPOINT), "run", *place, *options]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **variables})


def _print(number: int, spent: Sequence[Spent], whole_s: float) -> None:
    *parts, total = spent
    print(f"job {number + 1}")
    for one in parts:
        shown = f"({one.seconds:.2f})" if one.is_meanwhile else f"{one.seconds:.2f} "
        print(f"{shown:>10} s  {one.name}")
    print(f"{total.seconds:>9.2f}  s  {total.name}; {whole_s:.2f} s in all")
    figures = {one.name: round(one.seconds, 3) for one in spent}
    print(json.dumps({"job": number + 1, **figures, "whole job": round(whole_s, 3)}), flush=True)


def _print_use(start: WorkerStart) -> None:
    """Whether the start's seconds were spent computing, in the system, or waiting."""
    moments = (("its program began", start.began_use), ("all was imported", start.imported_use))
    for moment, use in moments:
        if use:
            print(
                f"the GPU side's process until {moment}: {use.user_s:.2f} s in its own code, "
                f"{use.system_s:.2f} s in the system, {use.page_faults:,} page faults"
            )


if __name__ == "__main__":
    main()
