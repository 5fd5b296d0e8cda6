"""How the parent starts, follows and ends the GPU side, tested with fake workers."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from nlijob import errors, launch, records
from nlijob.bytecode import PREFIX
from nlijob.errors import ExitCode, JobError
from nlijob.hosts import Hosts
from nlijob.launch import GpuSide, launch_command
from nlijob.members import Members
from nlijob.records.job import Progress, WorkerFailure, WorkerOutcome, WorkerTask
from nlijob.rundir import RunDir, append_record, write_record
from nlijob.stopping import Stopped
from nlijob.surroundings import ALL_LIBRARIES
from tests.jobs import ROOT

# Available to the fake workers: `root`, the run's folder, and functions that write records.
PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

root = Path(sys.argv[1])

def leave(exit_code, message="", hint=""):
    outcome = {"exit_code": int(exit_code), "message": message, "hint": hint}
    (root / "worker" / "outcome.json").write_text(json.dumps(outcome))

def tell(text):
    with (root / "worker" / "progress.jsonl").open("a") as out:
        out.write(text)

def line(done, note=""):
    return json.dumps({"stage": "train", "part": "epoch 1", "done": done, "total": 3,
                       "unit": "rows", "note": note}) + "\\n"

(root / "group").write_text(str(os.getpid()))
"""
FOLLOW_LIFELINE = "sys.stdin.buffer.read()\n"
TASK = WorkerTask(1, 0.0, 0.0, "model", "", {})
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
tell(line(1))
sys.stdin.buffer.read()
(root / "heard").touch()
time.sleep(600)
"""

Start = Callable[..., list[Progress]]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


@pytest.fixture
def any_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the grace to pass waits for ever."""
    monkeypatch.setattr(launch, "STOP_GRACE_S", math.inf)


@pytest.fixture
def start(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs the code of a fake worker to its end; returns the progress that arrived."""

    def start(
        code: str,
        on_progress: Callable[[Progress], None] = lambda _: None,
        processes: int = 1,
    ) -> list[Progress]:
        argv = [sys.executable, "-c", PRELUDE + code, str(run.root)]
        monkeypatch.setattr(launch, "launch_command", lambda *_: argv)
        seen: list[Progress] = []

        def show(progress: Progress) -> None:
            seen.append(progress)
            on_progress(progress)

        with GpuSide(run, "cpu", processes=processes) as gpu_side:
            gpu_side.start()
            gpu_side.give(TASK)
            gpu_side.follow(show)
        return seen

    return start


def stop(_: Progress) -> None:
    raise Stopped("SIGTERM")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def group_is_gone(run: RunDir) -> bool:
    """Whether no process of the worker's group is running; zombies do not count."""
    group = int((run.root / "group").read_text(encoding="utf-8"))
    members = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                members.append(process.info["status"])
    return set(members) <= {psutil.STATUS_ZOMBIE}


# ---------------------------------------------------------------- how it ends


def test_a_worker_that_is_done_raises_nothing(start: Start) -> None:
    start("leave(0)")


@pytest.mark.parametrize(
    "kind",
    [
        errors.ConfigurationError,
        errors.NotAvailableError,
        errors.HardwareError,
        errors.DivergedError,
        errors.StoppedError,
        errors.JobError,
    ],
)
def test_the_error_that_the_worker_left_is_raised(start: Start, kind: type[JobError]) -> None:
    with pytest.raises(JobError) as caught:
        start(f"leave({int(kind.exit_code)}, 'what', 'how')")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("what", "how")
    assert caught.value.exit_code == kind.exit_code


def test_the_outcome_counts_whatever_status_the_launcher_gives_it(start: Start) -> None:
    start("leave(0); sys.exit(1)")
    with pytest.raises(errors.DivergedError):
        start(f"leave({int(ExitCode.DIVERGED)}); sys.exit(0)")


def test_a_worker_that_dies_without_an_outcome_shows_the_end_of_its_log(start: Start) -> None:
    with pytest.raises(JobError) as caught:
        start("for i in range(40): print('line', i, flush=True)\nsys.exit('no driver')")
    message = caught.value.message
    assert caught.value.exit_code == ExitCode.INTERNAL
    assert "(status 1)" in message
    assert message.endswith("  | line 39\n  | no driver")
    assert "line 20" not in message


def test_a_killed_worker_most_likely_ran_out_of_memory(start: Start) -> None:
    with pytest.raises(
        errors.HardwareError, match=r"killed \(SIGKILL\), most likely because memory"
    ):
        start("os.kill(os.getpid(), signal.SIGKILL)")


def test_a_torn_line_of_progress_is_left_out(start: Start) -> None:
    seen = start("tell(line(1)); tell(line(2)[:9] + line(2)); tell(line(3))\nleave(0)")
    assert [progress.done for progress in seen] == [1, 3]


def test_a_log_that_is_not_utf_8_can_be_shown(start: Start) -> None:
    with pytest.raises(JobError, match="caf�"):
        start(r"os.write(1, b'caf\xe9\n'); sys.exit(1)")


def test_a_torn_outcome_counts_as_none(start: Start) -> None:
    with pytest.raises(JobError, match="ended without an outcome"):
        start("(root / 'worker' / 'outcome.json').write_text('{\"exit_code\": 0')")


def test_records_of_an_earlier_attempt_are_ignored(start: Start, run: RunDir) -> None:
    write_record(run.worker_outcome, WorkerOutcome(0, "", ""))
    append_record(run.progress, Progress("train", "epoch 9", 1, 2, "rows"))
    seen: list[Progress] = []
    with pytest.raises(JobError, match="ended without an outcome"):
        start("sys.exit(1)", seen.append)
    assert seen == []


def test_folders_in_the_place_of_messages_end_no_attempt(start: Start, run: RunDir) -> None:
    for path in (run.worker_outcome, run.progress, run.worker_log, run.accelerate_config):
        (path / "folder").mkdir(parents=True)
    (progress,) = start("tell(line(1)); leave(0)")
    assert progress.done == 1


def test_the_outcome_is_raised_before_the_worker_is_gone(
    run: RunDir, start: Start, any_grace: None
) -> None:
    with pytest.raises(errors.HardwareError):
        start("leave(5)\n" + FOLLOW_LIFELINE)
    assert group_is_gone(run)


def test_a_worker_that_died_before_its_task_shows_its_log(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [sys.executable, "-c", "import os, sys; os.close(0); sys.exit('no torch')"]
    monkeypatch.setattr(launch, "launch_command", lambda *_: argv)
    with GpuSide(run, "cpu") as gpu_side:
        gpu_side.start()
        assert gpu_side._process
        gpu_side._process.wait(60)
        gpu_side.give(TASK)
        with pytest.raises(JobError, match="no torch"):
            gpu_side.follow(lambda _: None)


def test_a_worker_waits_for_its_task(start: Start, run: RunDir) -> None:
    start("sys.stdin.buffer.read(1); leave((root / 'worker' / 'task.json').exists() - 1)")
    assert records.read(WorkerTask, run.worker_task) == TASK


# ---------------------------------------------------------------- several processes

TELL_FAILURE = """
def fail(rank, status, said=None, silent_s=None):
    failure = {"rank": rank, "processes": 2, "local_rank": rank, "host": "here", "pid": 99,
               "status": status, "outcome": said, "silent_s": silent_s}
    (root / "worker" / "failure.json").write_text(json.dumps(failure))

def lose_another():
    outcome = {"exit_code": 70, "message": "lost", "hint": "", "lost_another": True}
    (root / "worker" / "outcome.json").write_text(json.dumps(outcome))
"""
OUTSIDE = """
outside = [sys.executable, "-c", "import time; time.sleep(600)"]
process = subprocess.Popen(outside, start_new_session=True)
(root / "outside").write_text(str(process.pid))
"""


def test_the_process_that_failed_is_told_rather_than_the_lead_that_lost_it(start: Start) -> None:
    with pytest.raises(errors.HardwareError, match=r"process 1 of 2 \(on here\) was killed"):
        start(TELL_FAILURE + "lose_another(); time.sleep(0.3); fail(1, -9)", processes=2)


def test_the_process_that_failed_is_told_rather_than_the_stop_of_the_lead(start: Start) -> None:
    said = {"exit_code": 5, "message": "out of memory", "hint": "less"}
    with pytest.raises(errors.HardwareError, match=r"process 1 of 2 \(on here\): out of memory"):
        start(TELL_FAILURE + f"leave(75, 'stopped'); fail(1, 5, {said})", processes=2)


def test_a_lead_that_lost_another_is_told_where_nothing_else_is(start: Start) -> None:
    with pytest.raises(JobError, match="lost"):
        start(TELL_FAILURE + "lose_another()", processes=2)


def test_a_lead_that_is_done_is_done_whatever_ends_others(start: Start) -> None:
    start(TELL_FAILURE + "leave(0); fail(1, -9)", processes=2)


def test_a_lead_without_memory_is_named(start: Start) -> None:
    with pytest.raises(errors.HardwareError, match=r"process 0 of 2 \(on .*\): out of memory"):
        start("leave(5, 'out of memory')\n" + FOLLOW_LIFELINE, processes=2)


def test_a_lead_whose_training_diverged_speaks_for_all(start: Start) -> None:
    with pytest.raises(errors.DivergedError) as caught:
        start("leave(6, 'the loss is not finite')\n" + FOLLOW_LIFELINE, processes=2)
    assert caught.value.message == "the loss is not finite"


def test_a_process_that_hangs_ends_the_others_while_they_wait(
    start: Start, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "FAILED_GRACE_S", 0.2)
    with pytest.raises(errors.HardwareError, match="no sign of life for 20 s"):
        start(TELL_FAILURE + "fail(1, None, silent_s=20.0); time.sleep(600)", processes=2)
    assert group_is_gone(run)


def test_processes_in_sessions_of_their_own_are_ended_too(
    start: Start, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STOP_GRACE_S", 0.2)
    start(OUTSIDE + "leave(0)")
    pid = int((run.root / "outside").read_text(encoding="utf-8"))
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_words_of_an_earlier_attempts_processes_are_ignored(start: Start, run: RunDir) -> None:
    write_record(run.worker_failure, WorkerFailure(1, 2, 1, "here", 99, -9))
    write_record(run.outcome_of(1), WorkerOutcome(5, "out of memory", ""))
    start("leave(len(list((root / 'worker').glob('[fo]*'))))", processes=2)


# ---------------------------------------------------------------- progress


def test_every_line_of_progress_arrives_in_order(start: Start) -> None:
    seen = start("for n in range(1, 4): tell(line(n))\nleave(0)")
    assert [progress.done for progress in seen] == [1, 2, 3]


def test_progress_arrives_while_the_worker_runs(start: Start, run: RunDir) -> None:
    answer = run.root / "answer"
    wait = "while not (root / 'answer').exists(): time.sleep(0.01)\n"
    start("tell(line(1))\n" + wait + "leave(0)", lambda _: answer.touch())


def test_a_line_written_in_pieces_arrives_once_and_complete(start: Start) -> None:
    pieces = "text = line(1, 'é' * 9)\ntell(text[:60]); time.sleep(0.3); tell(text[60:])\nleave(0)"
    (progress,) = start(pieces)
    assert progress.note == "é" * 9


# ---------------------------------------------------------------- stopping


def test_stopped_is_raised_and_the_worker_ends_cleanly(start: Start, run: RunDir) -> None:
    with pytest.raises(Stopped):
        start("tell(line(1))\n" + FOLLOW_LIFELINE + "leave(75, 'in good order')", stop)
    assert records.read(WorkerOutcome, run.worker_outcome).message == "in good order"
    assert group_is_gone(run)


def test_what_ignores_the_lifeline_is_killed_after_its_grace(
    start: Start, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that starts at 0, and on which the grace is over once the worker has heard that it is
    # to end; it may hear that before the clock is first asked.
    first = iter([0.0])
    clock = SimpleNamespace(
        monotonic=lambda: next(first, 2.0 * launch.STOP_GRACE_S * (run.root / "heard").exists()),
        sleep=time.sleep,
        time=time.time,
    )
    monkeypatch.setattr(launch, "time", clock)
    with pytest.raises(Stopped):
        start(DEAF, stop)
    assert group_is_gone(run)


def test_a_worker_gets_no_longer_than_it_needs(start: Start, any_grace: None) -> None:
    with pytest.raises(Stopped):
        start("tell(line(1))\n" + FOLLOW_LIFELINE, stop)


def test_processes_that_outlive_the_worker_are_ended_too(
    start: Start, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STOP_GRACE_S", 0.2)
    start("subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nleave(0)")
    assert group_is_gone(run)


def test_a_fault_while_showing_progress_ends_the_group(start: Start, run: RunDir) -> None:
    def broken(_: Progress) -> None:
        raise RuntimeError("cannot show")

    with pytest.raises(RuntimeError, match="cannot show"):
        start("tell(line(1))\n" + FOLLOW_LIFELINE, broken)
    assert group_is_gone(run)


def test_a_worker_without_a_task_gets_no_grace(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, any_grace: None
) -> None:
    argv = [sys.executable, "-c", PRELUDE + DEAF, str(run.root)]
    monkeypatch.setattr(launch, "launch_command", lambda *_: argv)
    with GpuSide(run, "cpu") as gpu_side:
        gpu_side.start()
        wait_for(run.progress)
    assert group_is_gone(run)


STOPPED_AT_ONCE = """
import os, signal, subprocess, sys
from pathlib import Path
from nlijob import launch, stopping
from nlijob.rundir import RunDir

def popen(command, **options):
    process = started([sys.executable, "-c", "import time; time.sleep(600)"], **options)
    os.kill(os.getpid(), signal.SIGTERM)  # before the process is known
    return process

started, subprocess.Popen = subprocess.Popen, popen
stopping.raise_on_signals()
gpu_side = launch.GpuSide(RunDir(Path(sys.argv[1])), "cpu")
try:
    with gpu_side:
        gpu_side.start()
except stopping.Stopped:
    print(gpu_side._process.returncode)
"""


def test_a_stop_during_the_start_leaves_no_process_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AT_ONCE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["-9"], done.stderr


def test_the_grace_is_below_what_schedulers_give() -> None:
    assert launch.STOP_GRACE_S < 30


def test_zombies_that_nothing_reaps_do_not_delay_the_end(tmp_path: Path) -> None:
    # As in a container whose process 1 does not reap orphans, so that they stay zombies.
    first_process = """
import ctypes, subprocess, sys
set_child_subreaper = 36
ctypes.CDLL(None).prctl(set_child_subreaper, 1)
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""
    job = """
import signal, sys
from pathlib import Path
from nlijob import launch
from nlijob.errors import JobError
from nlijob.records.job import WorkerTask
from nlijob.rundir import RunDir

signal.alarm(10)
launch.STOP_GRACE_S = 0.2
worker = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'pass'])"
launch.launch_command = lambda *_: [sys.executable, "-c", worker]
try:
    with launch.GpuSide(RunDir(Path(sys.argv[1])), "cpu") as gpu_side:
        gpu_side.start()
        gpu_side.give(WorkerTask(1, 0.0, 0.0, "model", "", {}))
        gpu_side.follow(print)
except JobError:
    sys.exit(0)
"""
    argv = [sys.executable, "-c", first_process, job, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0


# ---------------------------------------------------------------- how it starts


@pytest.mark.parametrize(("device", "on_cpu"), [("cpu", True), ("cuda", False)])
def test_the_worker_is_started_by_accelerate_as_one_process(
    run: RunDir, device: str, on_cpu: bool
) -> None:
    command = launch_command(run, device)
    assert command[:3] == [sys.executable, "-m", "nlijob.gpu.launcher"]
    assert command[-3:] == ["-m", "nlijob.gpu", str(run.root)]
    assert command[command.index("--num_processes") + 1] == "1"
    assert ("--cpu" in command) == on_cpu


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_several_processes_are_started_by_accelerate_at_a_free_port(
    run: RunDir, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    command = launch_command(run, device, processes=3)
    values = dict(itertools.pairwise(command))
    assert values["--num_processes"] == "3"
    assert values["--main_process_port"] == "0"
    assert values["--num_cpu_threads_per_process"] == "2"
    assert "--multi_gpu" in command
    assert "--cpu" not in command  # with which accelerate starts one process only
    assert command[-3:] == ["-m", "nlijob.gpu", str(run.root)]


def test_the_processes_of_several_hosts_meet_at_host_0(run: RunDir) -> None:
    command = launch_command(run, "cuda", processes=4, hosts=Hosts(2, 1, "fd00::1", 1234))
    values = dict(itertools.pairwise(command))
    assert values["--num_machines"] == "2"
    assert values["--machine_rank"] == "1"
    assert values["--num_processes"] == "8"  # of all hosts
    assert values["--main_process_ip"] == "[fd00::1]"
    assert values["--main_process_port"] == "1234"
    assert values["--rdzv_conf"] == "timeout=300"
    assert "--multi_gpu" in command


def test_one_process_on_each_of_several_hosts_joins_the_others(run: RunDir) -> None:
    command = launch_command(run, "cpu", processes=1, hosts=Hosts(2, 0, "node0", 1234))
    assert dict(itertools.pairwise(command))["--num_processes"] == "2"
    assert "--multi_gpu" in command
    assert "--cpu" not in command


def test_the_worker_is_in_a_process_group_of_its_own(start: Start, run: RunDir) -> None:
    start("(root / 'pgid').write_text(str(os.getpgid(0)))\nleave(0)")
    pgid = (run.root / "pgid").read_text(encoding="utf-8")
    assert pgid == (run.root / "group").read_text(encoding="utf-8")


def test_the_worker_is_offline_and_keeps_the_users_python_path(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    with pytest.raises(JobError) as caught:
        start("leave(70, os.environ['HF_HUB_OFFLINE'], os.environ['PYTHONPATH'])")
    assert caught.value.message == "1"
    assert caught.value.hint.split(os.pathsep) == [str(ROOT), "/of/the/user"]


def test_files_of_the_current_folder_shadow_no_module_of_the_worker(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    argv = [sys.executable, "-c", PRELUDE + "leave(0)", str(run.root)]
    monkeypatch.setattr(launch, "launch_command", lambda *_: argv)
    with GpuSide(run, "cpu") as gpu_side:
        gpu_side.start()
        gpu_side.give(TASK)
        gpu_side.follow(lambda _: None)


def test_the_workers_log_can_be_followed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [sys.executable, "-c", PRELUDE + "print('out\\ntorn', end='', flush=True); leave(0)"]
    monkeypatch.setattr(launch, "launch_command", lambda *_: [*argv, str(run.root)])
    lines: list[str] = []
    with GpuSide(run, "cpu", lines.append) as gpu_side:
        gpu_side.start()
        gpu_side.give(TASK)
        gpu_side.follow(lambda _: None)
    assert lines == ["out"]


@pytest.mark.parametrize("trusts_code", [True, False])
def test_code_that_comes_with_a_model_finds_all_libraries(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, trusts_code: bool
) -> None:
    code = f"print('{ALL_LIBRARIES}' in os.environ, flush=True); leave(0)"
    argv = [sys.executable, "-c", PRELUDE + code, str(run.root)]
    monkeypatch.setattr(launch, "launch_command", lambda *_: argv)
    with GpuSide(run, "cpu", trusts_code=trusts_code) as gpu_side:
        gpu_side.start()
        gpu_side.give(TASK)
        gpu_side.follow(lambda _: None)
    assert run.worker_log.read_text(encoding="utf-8") == f"{trusts_code}\n"


def test_the_processes_learn_their_place_for_compiled_modules(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "bytecode_environment", lambda _: {PREFIX: str(tmp_path)})
    monkeypatch.setattr(launch, "compile_ahead", lambda *_: None)
    argv = [sys.executable, "-c", PRELUDE + "print(sys.pycache_prefix, flush=True); leave(0)"]
    monkeypatch.setattr(launch, "launch_command", lambda *_: [*argv, str(run.root)])
    with GpuSide(run, "cpu") as gpu_side:
        gpu_side.start()
        gpu_side.give(TASK)
        gpu_side.follow(lambda _: None)
    assert run.worker_log.read_text(encoding="utf-8") == f"{tmp_path}\n"


def test_compiling_modules_ends_with_the_gpu_side(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [sys.executable, "-c", "import signal; signal.pause()"]
    compiling = subprocess.Popen(waits, start_new_session=True)
    monkeypatch.setattr(launch, "compile_ahead", lambda *_: compiling)
    monkeypatch.setattr(launch, "launch_command", lambda *_: waits)
    with GpuSide(run, "cpu") as gpu_side:
        gpu_side.start()
    assert compiling.returncode == -signal.SIGKILL


def test_the_workers_output_goes_to_its_log(start: Start, run: RunDir) -> None:
    start("print('out', flush=True); print('err', file=sys.stderr)\nleave(0)")
    assert run.worker_log.read_text(encoding="utf-8") == "out\nerr\n"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "/proc"), psutil.AccessDenied(1)])
def test_processes_are_ended_where_the_process_table_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(psutil, "process_iter", fail)
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    launch._end_group(process, Members(), grace_s=0.0)
    assert process.returncode == -signal.SIGKILL
