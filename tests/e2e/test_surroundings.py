"""Whole jobs in surroundings that used to end them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nlijob.rundir import RunDir
from tests import jobs

pytestmark = pytest.mark.slow

TINY = (
    *("--recipe", "demo", "--train-size", "32", "--validation-size", "16", "--test-size", "16"),
    *("--epochs", "1", "--set", "eval.generate_tokens=0", "--set", "eval.word_importance=false"),
)
AMONG_OTHERS = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "29500",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_MIXED_PRECISION": "fp16",
}


def shell(line: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a job in a line of bash, in which "$@" is the command."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *jobs.command("run", *TINY, *arguments)],
        env=jobs.environment(**env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_job_whose_files_may_not_grow_ends_with_74_and_then_goes_on_where_nobody_reads_it(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path / "job")
    place = ("--runs-dir", tmp_path, "--run-id", "job")
    full = shell('ulimit -f 200; exec "$@"', *place)  # in kB; the adapter is larger
    assert full.returncode == 74, full.stderr
    assert str(tmp_path / "job") in full.stderr
    assert "ulimit -f" in full.stderr
    assert "Traceback" not in full.stderr

    # without a reader of its log, and with the variables of a launcher of two processes
    again = shell('"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}', *place, **AMONG_OTHERS)
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 1
    kept = run.console_log.read_text(encoding="utf-8").splitlines()
    begun = kept.index(again.stdout.strip())
    assert any(line.endswith("baseline  complete, skipped") for line in kept[begun:])
    assert kept[-1] == f"Report: {run.report}"
