"""`accelerate launch` as the job calls it: in hostile surroundings, and with its child's status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from nlijob import launch
from nlijob.errors import HardwareError, JobError, StoppedError
from nlijob.gpu import launcher
from nlijob.gpu.launcher import first_failure
from nlijob.launch import GpuSide, launch_command
from nlijob.records.job import WorkerOutcome, WorkerTask
from nlijob.rundir import RunDir, write_record

TASK = WorkerTask(1, 0.0, 0.0, "model", "", {})
SERVICE = """
compute_environment: AMAZON_SAGEMAKER
distributed_type: DATA_PARALLEL
ec2_instance_type: ml.p3.2xlarge
iam_role_name: role
mixed_precision: fp16
num_machines: 4
profile: nobody
region: nowhere
"""
CHILD = """
import json, os, sys
from pathlib import Path

root = Path(sys.argv[1])
told = {"environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path}
told |= {"process": os.getpid(), "group": os.getpgrp(), "arguments": sys.argv[1:]}
(root / "told.json").write_text(json.dumps(told))
(root / "worker" / "outcome.json").write_text('{"exit_code": 0, "message": "", "hint": ""}')
"""
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def follow(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, child: str, device: str, processes: int = 1
) -> None:
    """Launch `child` in place of the GPU side, as the job does, and follow it to its end."""
    run.root.mkdir()
    script = run.root / "child.py"
    script.write_text(child, encoding="utf-8")

    def command(run: RunDir, *settings: Any) -> list[str]:
        *launcher, _, _, root = launch_command(run, *settings)
        return [*launcher, str(script), root]

    monkeypatch.setattr(launch, "launch_command", command)
    with GpuSide(run, device, processes=processes) as gpu_side:
        gpu_side.start()
        gpu_side.give(TASK)
        gpu_side.follow(lambda _: None)


def test_what_surrounds_the_job_does_not_reach_its_gpu_side(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "192.0.2.1",
        "MASTER_PORT": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "SLURM_PROCID": "1",
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_MIXED_PRECISION": "fp16",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HOME": "cache",
        "PYTHONPATH": f"{os.pathsep}modules",
    }.items():
        monkeypatch.setenv(name, value)
    settings = tmp_path / "cache" / "accelerate" / "default_config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(SERVICE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    follow(run, monkeypatch, CHILD, "cuda")  # with --cpu, accelerate reads no settings

    told = json.loads((run.root / "told.json").read_text(encoding="utf-8"))
    found = told["environment"]
    left = ("RANK", "WORLD_SIZE", "MASTER_", "OMPI_", "SLURM_", "ACCELERATE_USE_")
    assert {name for name in found if name.startswith(left)} == {"ACCELERATE_USE_CPU"}
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"
    assert found["CUDA_VISIBLE_DEVICES"] == "0"
    assert found["HF_HOME"] == str(tmp_path / "cache")
    assert told["folder"] == str(run.worker_log.parent)
    assert str(tmp_path) not in told["path"]
    assert str(tmp_path / "modules") in told["path"]
    assert told["process"] == told["group"]  # that of the launcher, which heads the group
    assert told["arguments"] == [str(run.root)]


class Ended(NamedTuple):
    """What torchrun says of a process that failed."""

    local_rank: int
    exitcode: int
    timestamp: int = 100
    pid: int = 99


LOST = WorkerOutcome(70, "connection closed by peer", "", lost_another=True)
NO_MEMORY = WorkerOutcome(5, "out of memory", "")
STOPPED = WorkerOutcome(75, "stopped (SIGTERM)", "")
BUG = WorkerOutcome(70, "a bug", "")


@pytest.mark.parametrize(
    ("ends", "outcomes", "first"),
    [
        pytest.param({1: -9, 0: 70}, {0: LOST}, 1, id="killed"),
        pytest.param({0: 70, 1: -11}, {0: LOST}, 1, id="crashed"),
        pytest.param({0: 75, 1: 5}, {0: STOPPED, 1: NO_MEMORY}, 1, id="no memory"),
        pytest.param({0: 5, 1: 75}, {0: NO_MEMORY, 1: STOPPED}, 0, id="no memory for the lead"),
        pytest.param({0: -9, 1: -15}, {}, 0, id="the others ended before they could say so"),
        pytest.param({0: 75, 1: 1}, {0: STOPPED}, 1, id="ended without a word"),
        pytest.param({0: 70, 1: -6}, {0: BUG}, 1, id="a crash before an error that may follow it"),
        pytest.param({0: 70}, {0: LOST}, 1, id="ended with status 0, without a word"),
        pytest.param({1: 70}, {0: WorkerOutcome(0, "", ""), 1: LOST}, 1, id="after the lead's end"),
        pytest.param({0: 75, 1: 75}, {0: STOPPED, 1: STOPPED}, 0, id="all stopped"),
    ],
)
def test_the_failure_that_led_to_the_others_is_found(
    run: RunDir, ends: dict[int, int], outcomes: dict[int, WorkerOutcome], first: int
) -> None:
    for rank, outcome in outcomes.items():
        write_record(run.outcome_of(rank), outcome)
    failures: Any = {rank: Ended(rank, status) for rank, status in ends.items()}
    found = first_failure(failures, run, processes=2, processes_here=2)
    assert (found.rank, found.status) == (first, ends.get(first, 0))
    assert found.outcome == (outcomes.get(first) if first in ends else None)


def test_the_failure_that_was_noticed_first_counts(run: RunDir) -> None:
    failures: Any = {4: Ended(0, 70, timestamp=100), 5: Ended(1, -9, timestamp=130)}
    found = first_failure(failures, run, processes=6, processes_here=2)
    assert (found.rank, found.local_rank, found.processes) == (4, 0, 6)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_first_failure_is_written_for_a_parent_that_is_still_there(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def main() -> None:
        ended = ProcessFailure(local_rank=1, pid=99, exitcode=-9, error_file=os.devnull)
        raise ChildFailedError("nlijob.gpu", {1: ended})

    run.worker_log.parent.mkdir(parents=True)
    monkeypatch.chdir(run.worker_log.parent)
    monkeypatch.setattr(sys, "argv", ["launcher", "--num_processes", "2", "--num_machines", "1"])
    monkeypatch.setattr("accelerate.commands.launch.main", main)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe, os.fdopen(writing, "w") as parent:
        monkeypatch.setattr(sys, "stdin", pipe)
        if not is_there:
            parent.close()
        with pytest.raises(SystemExit) as ended:
            launcher.main()
    assert ended.value.code == 128 + 9
    assert run.worker_failure.exists() == is_there


def test_a_port_that_another_program_took_in_the_meantime_is_chosen_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([RuntimeError("port: 1, name: EADDRINUSE"), None])

    def main() -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr("accelerate.commands.launch.main", main)
    launcher._launch_several()
    assert next(answers, "asked twice") == "asked twice"


def test_an_error_that_is_not_about_the_port_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr("accelerate.commands.launch.main", main)
    with pytest.raises(RuntimeError, match="no such device"):
        launcher._launch_several()


def test_the_signal_that_ended_the_gpu_side_is_known(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HardwareError, match="killed"):
        follow(run, monkeypatch, KILLED, "cpu")


# ---------------------------------------------------------------- several, under torchrun

OF_SEVERAL = """
import os, signal, sys, types

from nlijob.gpu import __main__ as gpu
from nlijob.gpu import heartbeat
from nlijob.gpu.group import join
from nlijob.gpu.outcome import outcome_of

heartbeat.BEAT_S, heartbeat.SILENT_S, heartbeat.HELD_UP_S = 0.1, 3.0, 1.0

def work(run):
    group = join("cpu")
    with heartbeat.watch(group, run, lambda: False):
        (run.root / f"process-{group.rank}").write_text(str(os.getpid()))
        for turn in range(1000000):
            group.gather(turn)
            if turn == 100 and group.rank == RANK:
                os.kill(os.getpid(), signal.SIGNAL)

def outcome(run):
    try:
        work(run)
    except Exception as error:
        return outcome_of(error, run)

sys.modules["faulty"] = types.SimpleNamespace(work=outcome)
gpu.WORKERS = {"job": "faulty"}
gpu.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "sent", "kind", "said"),
    [
        (1, "SIGKILL", HardwareError, r"process 1 of 2 \(on .*\) was killed"),
        (0, "SIGSTOP", HardwareError, r"process 0 of 2 \(on .*\) has shown no sign of life"),
        (1, "SIGTERM", StoppedError, "stopped"),
    ],
)
def test_where_one_process_of_several_fails_all_end_and_it_is_named(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    rank: int,
    sent: str,
    kind: type[JobError],
    said: str,
) -> None:
    monkeypatch.setattr(launch, "FAILED_GRACE_S", 0.5)
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "PET_NNODES", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "7")  # of a launcher around the job
    child = OF_SEVERAL.replace("RANK", str(rank)).replace("SIGNAL", sent)
    with pytest.raises(kind, match=said):
        follow(run, monkeypatch, child, "cpu", processes=2)
    for started in run.root.glob("process-*"):
        with contextlib.suppress(psutil.NoSuchProcess):
            pid = int(started.read_text(encoding="utf-8"))
            assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert len(list(run.root.glob("process-*"))) == 2
