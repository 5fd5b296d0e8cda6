"""deploy/slurm: a script that bash can read; it starts a host on each node and retries stops.

The script runs with stand-ins for Slurm's commands.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nlijob.errors import ExitCode
from nlijob.hosts import Hosts, hosts_of
from nlijob.stopping import GRACE_S
from tests.deploy.files import DEPLOY, job_variables

SCRIPT = DEPLOY / "slurm" / "job.sbatch"
OPTIONS = {
    "job-name": r"\w+",
    "nodes": r"\d+",
    "ntasks-per-node": "1",
    "gpus-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+G",
    "time": r"\d\d:\d\d:\d\d",
    "signal": r"TERM@\d+",
    "requeue": None,
    "open-mode": "append|truncate",
    "output": r"[\w%.-]+",
}
"""Options of sbatch that the script may use -> the form of the value, as its manual has it."""


def given() -> dict[str, str | None]:
    """The options in the script."""
    found: dict[str, str | None] = {}
    for line in SCRIPT.read_text("utf-8").splitlines():
        if line.startswith("#SBATCH"):
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            found[match[1]] = match[2]
    return found


def test_bash_can_read_the_script() -> None:
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_options_are_those_of_sbatch_and_stand_before_any_command() -> None:
    for name, value in given().items():
        form = OPTIONS[name]
        assert (value is None) if form is None else re.fullmatch(form, value or ""), name
    lines = SCRIPT.read_text("utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])  # else sbatch ignores them


def test_the_job_has_time_to_stop_before_its_time_is_over() -> None:
    signal = given()["signal"]
    assert signal
    assert int(signal.partition("@")[2]) > GRACE_S + 5


class Cluster:
    """Two nodes, n1 and n2, whose job ends with a given exit code on each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said = root / "said.txt"
        for name, text in {
            "scontrol": '[ "$1" = show ] && printf "n1\\nn2\\n" || echo "$@" >> said.txt',
            "srun": 'while [ "$1" != bash ]; do shift; done; '
            'SLURM_NODEID=0 "$@" || status=$?; SLURM_NODEID=1 "$@" || status=$?; exit ${status:-0}',
            ".venv/bin/python": "env >> said.txt; exit $JOB_STATUS",
        }.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"#!/bin/bash\n{text}\n", "utf-8")
            file.chmod(0o755)

    def run(self, status: int = 0, **variables: str) -> int:
        """Run the script; returns its exit code."""
        environment = {
            "PATH": f"{self.root}:/usr/bin:/bin",
            "SLURM_SUBMIT_DIR": str(self.root),
            "SLURM_JOB_ID": "123456",
            "SLURM_NNODES": "2",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "JOB_STATUS": str(status),
            **variables,
        }
        bash = shutil.which("bash")
        assert bash
        done = subprocess.run([bash, SCRIPT], env=environment, cwd=self.root, check=False)
        return done.returncode

    @property
    def is_queued_again(self) -> bool:
        return "requeue 123456" in self.said.read_text("utf-8").splitlines()

    def of_nodes(self, variable: str) -> list[str]:
        """The values of a variable that the job gets, by node."""
        return re.findall(rf"^{variable}=(.*)$", self.said.read_text("utf-8"), re.M)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_each_node_is_a_host_of_the_same_run(cluster: Cluster) -> None:
    assert cluster.run() == ExitCode.DONE
    names = ("NLIJOB_HOSTS", "NLIJOB_HOST_RANK", "NLIJOB_RENDEZVOUS")
    by_node = zip(*map(cluster.of_nodes, names), strict=True)
    hosts = [hosts_of(count, rank, place, None, {}) for count, rank, place in by_node]
    assert hosts == [Hosts(2, rank, "n1", 23456) for rank in (0, 1)]
    assert cluster.of_nodes("NLIJOB_RUN_ID") == ["slurm-123456"] * 2
    assert set(re.findall(r"NLIJOB_\w+", SCRIPT.read_text("utf-8"))) <= job_variables()


def test_a_stopped_job_is_queued_again(cluster: Cluster) -> None:
    assert cluster.run(ExitCode.STOPPED) == ExitCode.STOPPED
    assert cluster.is_queued_again


def test_a_job_is_queued_again_five_times_at_most(cluster: Cluster) -> None:
    assert cluster.run(ExitCode.STOPPED, SLURM_RESTART_COUNT="5") == ExitCode.STOPPED
    assert not cluster.is_queued_again


@pytest.mark.parametrize("code", [ExitCode.DONE, ExitCode.GATE_FAILED, ExitCode.HARDWARE])
def test_no_other_end_is_queued_again(cluster: Cluster, code: ExitCode) -> None:
    assert cluster.run(code) == code
    assert not cluster.is_queued_again


def test_the_users_own_settings_win(cluster: Cluster) -> None:
    cluster.run(NLIJOB_RECIPE="demo", NLIJOB_RUN_ID="mine")
    assert cluster.of_nodes("NLIJOB_RECIPE") == ["demo"] * 2
    assert cluster.of_nodes("NLIJOB_RUN_ID") == ["mine"] * 2
