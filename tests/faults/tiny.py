"""A job small enough to be run thousands of times, and what of its outcome must always be equal."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil

from nlijob import records
from nlijob.errors import ExitCode
from nlijob.records.job import RunRecord
from nlijob.rundir import RunDir
from nlijob.trials import trials_of
from tests import jobs

LIMIT_S = 300.0
"""After which a job counts as hanging, on the busiest machine."""
TRAININGS = int(os.environ.get("TRAININGS", "1"))
"""Trainings of the job."""
PROCESSES = int(os.environ.get("PROCESSES", "1"))
"""Processes of its GPU side."""
TINY = (
    *("--recipe", "demo", "--train-size", "48", "--validation-size", "24", "--test-size", "24"),
    *("--epochs", "3", "--set", "eval.cases=5", "--set", "eval.generate_tokens=2"),
    *("--set", "eval.word_importance=false", "--set", "train.checkpoint_every_s=0.01"),
    *("--set", "report.sample_interval_s=0.2", "--seeds", str(TRAININGS)),
    # without shared steps, whose sums are rounded in another order than those of one process
    *("--gpus", str(PROCESSES), "--set", f"machine.share={'trials' if TRAININGS > 1 else 'none'}"),
)
FIRST_TRAINING = "trials/seed-42" if TRAININGS > 1 else ""
"""Folder of its first training below the run's."""
RUN_ID = "job"
HOOK = Path(__file__).parent / "hook"
FIGURES = (
    *("base", "tuned", "gain", "gain_interval", "mcnemar_p", "bootstrap", "label_bias", "slices"),
    *("controls", "base_validation", "epochs", "selection", "cases", "manifest", "prompt"),
    *("parameters", "plan", "trials", "transfer", "forgetting"),
)
"""Keys of results.json that must be equal however often the job was stopped or damaged."""
MEASURED = frozenset({"duration_s", "memory", "warm_up_s"})
"""Keys below them whose values are measured anew in each attempt."""
FAULTS_OF_A_MACHINE = (
    ExitCode.DONE,
    ExitCode.CONFIGURATION,
    ExitCode.NOT_AVAILABLE,
    ExitCode.HARDWARE,
    ExitCode.DISK,
    ExitCode.STOPPED,
)
"""Ends that a fault of the machine may lead to; a bug is never among them."""


def arguments(runs_dir: Path) -> tuple[str | Path, ...]:
    """Arguments of the job's command."""
    return ("run", "--runs-dir", runs_dir, "--run-id", RUN_ID, *TINY)


def environment(**changes: str) -> dict[str, str]:
    """Environment of the job: one thread, so that many jobs can run at the same time."""
    return jobs.environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", **changes)


def with_hook(run: RunDir, side: str, at: int, number: int | None = None) -> dict[str, str]:
    """Environment in which `side` is killed, or meets error `number`, at its change number `at`."""
    path = os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH")]))
    error = {} if number is None else {"FAULT_ERRNO": str(number)}
    where = {"FAULT_SIDE": side, "FAULT_AT": str(at), "FAULT_ROOT": str(run.root)}
    return environment(PYTHONPATH=path, **where, **error)


def start(runs_dir: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the job; its output comes in one stream."""
    return subprocess.Popen(
        jobs.command(*arguments(runs_dir)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env or environment(),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output of a started job, once no process of it is left."""
    output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def call(*arguments_: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of a command."""
    done = jobs.run(*arguments_, timeout_s=LIMIT_S, env=env or environment())
    return done.returncode, done.stdout + done.stderr


def assert_says_what_to_do(code: int, output: str) -> None:
    """A fault of the machine ends with its own code and shows no traceback."""
    assert code in FAULTS_OF_A_MACHINE, output
    assert "Traceback" not in output, output


def gpu_side_of(run: RunDir) -> list[psutil.Process]:
    """The processes of the GPU side that work on a run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        is_one = "nlijob.gpu" in words
        if "nlijob.gpu.launcher" in words:  # it becomes a single process itself
            is_one = words[words.index("--num_processes") + 1] == "1"
        if is_one and str(run.root) in words:
            found.append(process)
    return found


def launchers_of(run: RunDir) -> list[psutil.Process]:
    """The processes that started the GPU side of a run."""
    named = ["-m", "nlijob.gpu.launcher"]
    processes = psutil.process_iter(["cmdline"])
    with_words = ((one, one.info["cmdline"] or []) for one in processes)
    return [one for one, words in with_words if words[1:3] == named and str(run.root) in words]


def outcome(run: RunDir) -> dict[str, Any]:
    """All figures of a finished run that must be those of an undisturbed one."""
    results = json.loads(run.results.read_text(encoding="utf-8"))
    views = [run.of_trial(trial) for trial in trials_of(records.read(RunRecord, run.config).config)]
    logs = [view.train_log.read_text(encoding="utf-8").splitlines() for view in views]
    steps = [[json.loads(line) for line in log] for log in logs]
    return {
        **{key: _unmeasured(results[key]) for key in FIGURES},
        "steps": _unmeasured(steps),
        "adapter": hashlib.sha256(
            (run.adapter / "adapter_model.safetensors").read_bytes()
        ).hexdigest(),
    }


def assert_same_outcome(run: RunDir, expected: dict[str, Any]) -> None:
    """The run's figures are the expected ones, to the last bit."""
    found = outcome(run)
    assert [key for key in expected if found[key] != expected[key]] == []


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmeasured(item) for key, item in value.items() if key not in MEASURED}
    return [_unmeasured(item) for item in value] if isinstance(value, list) else value
