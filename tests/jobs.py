"""Runs the command line in a process, as a user does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nlijob import records
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
"""Real rows and the real tokenizer, if a developer has them; tests skip otherwise."""

LIMIT_S = 240.0
"""After which a job counts as hanging, on the busiest machine."""
SMALL_DEMO = (
    *("--recipe", "demo", "--train-size", "96", "--validation-size", "32", "--test-size", "40"),
    *("--epochs", "2", "--set", "eval.cases=5", "--set", "eval.generate_tokens=4"),
    *("--set", "eval.few_shot=2"),
)


def command(*arguments: str | Path) -> list[str]:
    """argv of the entrypoint."""
    return [sys.executable, str(ROOT / "entrypoint.py"), *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without the job's variables, with `changes` made."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NLIJOB_")}
    return {**inherited, **changes}


def run(
    *arguments: str | Path, timeout_s: float = 300, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the entrypoint to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment() if env is None else env,
        check=False,
    )


@contextlib.contextmanager
def hearing_hang_ups() -> Iterator[None]:
    """Processes that are started in the block hear SIGHUP, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def run_job(
    runs_dir: Path, *arguments: str | Path, run_id: str = "job", timeout_s: float = 300
) -> tuple[RunDir, subprocess.CompletedProcess[str]]:
    """Run the job in `runs_dir/run_id`; fails the test, showing the logs, if the job fails."""
    done = run("run", "--runs-dir", runs_dir, "--run-id", run_id, *arguments, timeout_s=timeout_s)
    job = RunDir(runs_dir / run_id)
    assert done.returncode == 0, done.stderr + _log(job.worker_log)
    return job, done


def start(
    runs_dir: Path, *arguments: str | Path, run_id: str = "job", env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the job in `runs_dir/run_id`; what it tells comes in one stream, standard error."""
    where = ("--runs-dir", runs_dir, "--run-id", run_id)
    return subprocess.Popen(
        command("run", *where, *arguments),
        stderr=subprocess.PIPE,
        text=True,
        env=environment() if env is None else env,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a moment in the life of a started job; fails the test if the job ends before it."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, "the job ended too early: " + process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def no_process_left(job: RunDir) -> bool:
    """Whether all processes of a run end, within the limit."""
    deadline = time.monotonic() + LIMIT_S
    while processes_of(job):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def copy_run(job: RunDir, runs_dir: Path) -> RunDir:
    """A copy of a run in another folder of runs, under the same name."""
    return RunDir(shutil.copytree(job.root, runs_dir / job.root.name))


def results(job: RunDir) -> Results:
    """The run's results.json."""
    return records.read(Results, job.results)


def processes_of(job: RunDir) -> Sequence[int]:
    """Processes whose command line names the run's folder."""
    import psutil

    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(job.root) in " ".join(process.info["cmdline"] or [])
    ]


def _log(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-4000:] if path.exists() else ""
