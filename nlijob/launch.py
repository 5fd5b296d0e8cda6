"""Starts the GPU side with `accelerate launch` and follows it to its end.

`accelerate launch` does not forward signals. So the GPU side runs in a process group of its own and
reads a pipe (its standard input): it begins when a byte arrives and stops when the pipe is closed.
Before it ends it writes an outcome record. If it cannot, its status tells why it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar

from nlijob import records, stopping
from nlijob.attempt import Moment
from nlijob.bytecode import bytecode_environment, compile_ahead, end_compiling
from nlijob.errors import ExitCode, JobError, error_for
from nlijob.files import remove
from nlijob.hardware import gpu_name
from nlijob.host_link import HostLink
from nlijob.hosts import Hosts, bracketed
from nlijob.members import Members
from nlijob.memory import KernelMemory
from nlijob.records.job import Progress, WorkerFailure, WorkerOutcome, WorkerTask
from nlijob.rundir import RunDir, write_record, write_text
from nlijob.surroundings import accelerate_config, gpu_side_environment
from nlijob.worker_end import error_between, error_of_end, error_of_failure

POLL_S = 0.1
STOP_GRACE_S = stopping.GRACE_S
FAILED_GRACE_S = 3.0
"""Time that the processes of several get to end where one has failed: it may be one that hangs."""
MEETING_LIMIT_S = 300
"""Longest time in s that the launchers of several hosts wait for each other. All are started at the
same time; but a firewall may be between them."""
T = TypeVar("T")


def launch_command(
    run: RunDir,
    device: str,
    work: str = "job",
    processes: int = 1,
    hosts: Hosts | None = None,
    uses_fsdp: bool = False,
) -> list[str]:
    """argv that starts the GPU side under `accelerate launch`; `work` as in `nlijob.gpu`.

    `uses_fsdp`: whether the weights are divided between the processes, as the configuration says.

    Several processes are started by torchrun, within the launcher. They meet at a port of this
    host that is free, so that several jobs on one host do not meet; those of several `hosts`, at
    the port given there.
    """
    command = [sys.executable, "-m", "nlijob.gpu.launcher"]
    command += ["--config_file", str(run.accelerate_config.absolute())]
    count = hosts.count if hosts else 1
    command += ["--num_processes", str(processes * count), "--num_machines", str(count)]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    command += ["--num_cpu_threads_per_process", str(threads)]
    if hosts:
        command += ["--machine_rank", str(hosts.rank), "--main_process_port", str(hosts.port)]
        command += ["--main_process_ip", bracketed(hosts.address)]
        command += ["--rdzv_conf", f"timeout={MEETING_LIMIT_S}"]
    elif processes > 1:
        command += ["--main_process_port", "0"]
    if hosts or processes > 1:
        command += ["--use_fsdp" if uses_fsdp else "--multi_gpu"]
        command += ["--log_dir", os.devnull]  # torchrun would leave a temporary folder behind
    elif device == "cpu":
        command.append("--cpu")  # accelerate would then start a single process
    command += ["-m", "nlijob.gpu", str(run.root.absolute())]
    return command if work == "job" else [*command, work]


class GpuSide:
    """The process group of the GPU side; as a context manager it leaves none of it running.

    Starting takes seconds of imports, so the processes can be started before their task is known.
    """

    def __init__(
        self,
        run: RunDir,
        device: str,
        on_log: Callable[[str], None] = lambda _: None,
        work: str = "job",
        processes: int = 1,
        link: HostLink | None = None,
        fsdp: Mapping[str, object] | None = None,
        trusts_code: bool = False,
    ) -> None:
        """`on_log` is given each line of the processes' log while they are followed.

        `work`: what the processes do, as in `nlijob.gpu`. `processes`: how many do so on this host.
        `link`: the connection to other hosts, whose processes do it together with these. `fsdp`:
        how weights are divided between the processes (`nlijob.accelerate_file`), if at all.
        `trusts_code`: whether the model may come with code of its own, which may need any library.
        """
        self._run = run
        self._device = device
        self._work = work
        self._processes = processes
        self._size = processes
        """Number of processes on all hosts, once they are started."""
        self._link = link
        self._fsdp = fsdp
        self._trusts_code = trusts_code
        self._hosts: Hosts | None = None
        """The hosts that work together, once the processes are started."""
        self._may_follow = False
        """Whether the processes failed only because those of another host had failed before."""
        self._members = Members()
        self._on_log = on_log
        self._process: subprocess.Popen[bytes] | None = None
        self._compiling: subprocess.Popen[bytes] | None = None
        self._grace_s = 0.0
        self._memory_before = KernelMemory({})
        self.launched = Moment.now()
        """When the processes were started; before that, when this object was made."""

    def __enter__(self) -> GpuSide:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._compiling is not None:
            end_compiling(self._compiling)
        grace_s = self._grace_s
        if self._link and error:
            self._link.ended(error, self._may_follow)  # now, as ending the processes takes time
            grace_s = min(grace_s, FAILED_GRACE_S)
        if self._process is not None:
            _end_group(self._process, self._members, grace_s)

    def start(self) -> None:
        """Start the processes, unless they are running already; they wait for their task."""
        if self._process is not None:
            return
        run = self._run
        for stale in (*run.messages(), run.worker_log, run.accelerate_config):
            remove(stale)  # even a folder, which would end every attempt
        hosts = self._hosts = self._link.launch() if self._link else None
        self._size = self._processes * (hosts.count if hosts else 1)
        settings = accelerate_config(self._device == "cpu", self._size, self._fsdp)
        write_text(run.accelerate_config, json.dumps(settings))
        network = self._link.network if self._link else None
        environment = gpu_side_environment(os.environ, self._processes, network, self._trusts_code)
        self._memory_before = KernelMemory.now()
        place = bytecode_environment(environment)
        self.launched = Moment.now()
        # A stop between the start and the assignment would leave processes that nothing ends.
        with run.worker_log.open("wb") as log, stopping.delayed_stop():
            self._compiling = compile_ahead(place, environment)
            self._process = subprocess.Popen(
                launch_command(
                    run, self._device, self._work, self._processes, hosts, bool(self._fsdp)
                ),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, **place, **self._members.variables},
                cwd=run.worker_log.parent,
                start_new_session=True,
                bufsize=0,
            )

    def give(self, task: WorkerTask) -> None:
        """Hand over the task, whose inputs must be on disk, and have the processes begin."""
        assert self._process is not None
        assert self._process.stdin is not None
        write_record(self._run.worker_task, task)
        if self._link:
            self._link.begin(lambda: self.is_at_work)
        self._grace_s = STOP_GRACE_S  # before it has a task there is no work to lose
        with contextlib.suppress(BrokenPipeError):  # the process died; `follow` reports it
            self._process.stdin.write(b"\n")

    def follow(self, on_progress: Callable[[Progress], None]) -> None:
        """Report progress until the outcome record is there; the processes may still be ending.

        Raises the JobError that the GPU side reported, or one with the end of its log if it ended
        without an outcome record.
        """
        run = self._run
        with _Tail(run.progress) as progress, _Tail(run.worker_log) as log:
            running = True
            while running:
                running = self.is_at_work
                for line in log.lines():
                    self._on_log(line)
                for line in progress.lines():
                    if (told := _progress(line)) is not None:
                        on_progress(told)
                if running:
                    time.sleep(POLL_S)
        self.raise_outcome()

    def attend(self) -> None:
        """Wait for the end of processes that write an outcome only if they fail. Raises its error.

        So are those of another host than host 0.
        """
        assert self._process is not None
        with _Tail(self._run.worker_log) as log:
            running = True
            while running:
                running = self._process.poll() is None
                for line in log.lines():
                    self._on_log(line)
                if running:
                    time.sleep(POLL_S)
        if self._process.returncode:
            self.raise_outcome()

    @property
    def is_at_work(self) -> bool:
        """Whether the processes run and none has told of its end."""
        assert self._process is not None
        told = self._run.worker_outcome.exists() or self._run.worker_failure.exists()
        return self._process.poll() is None and not told

    def raise_outcome(self) -> None:
        """Raise the error that the outcome record holds or, without one, what the end suggests."""
        assert self._process is not None
        run = self._run
        outcome = _read(WorkerOutcome, run.worker_outcome)
        if outcome and outcome.exit_code == ExitCode.DONE:
            return
        failure = self._failure(outcome) if self._size > 1 else None
        error = self._error(outcome, failure)
        said = failure.outcome if failure else outcome
        is_known = not said.lost_another if said else failure is not None
        if self._hosts and error.exit_code == ExitCode.INTERNAL and not is_known:
            self._may_follow = True
            error = error_between(self._hosts, error, run.worker_log)
        raise error

    def _error(self, outcome: WorkerOutcome | None, failure: WorkerFailure | None) -> JobError:
        """What to raise; the arguments are what processes and launcher have told."""
        assert self._process is not None
        run = self._run
        if failure:
            self._grace_s = min(self._grace_s, FAILED_GRACE_S)
            gpu = None
            if self._device == "cuda":  # of the same kind, if it is another host's
                gpu = failure.gpu or gpu_name(failure.local_rank)
            return error_of_failure(failure, run.worker_log, self._kernel_killed(), gpu)
        if outcome:
            return error_for(outcome.exit_code, outcome.message, outcome.hint)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_GRACE_S)  # the launcher ends after what it started
        status = self._process.returncode or 0
        return error_of_end(status, run.worker_log, self._kernel_killed())

    def _failure(self, outcome: WorkerOutcome | None) -> WorkerFailure | None:
        """Which process failed, if the launcher or another process tells.

        `outcome`: the lead's. It may have ended only because another process had failed before.
        Then this waits for the word of the launcher, which ends after all that it started.
        """
        assert self._process is not None
        if outcome and outcome.exit_code != ExitCode.STOPPED and not outcome.lost_another:
            if outcome.exit_code != ExitCode.HARDWARE:
                return None  # which is not about its place
            host = socket.gethostname()
            return WorkerFailure(0, self._size, 0, host, 0, None, outcome=outcome)
        deadline = time.monotonic() + STOP_GRACE_S
        has_ended = False
        while not self._run.worker_failure.exists() and not has_ended:
            has_ended = self._process.poll() is not None or time.monotonic() > deadline
            time.sleep(0.0 if has_ended else POLL_S)
        return _read(WorkerFailure, self._run.worker_failure)

    def _kernel_killed(self) -> bool:
        return KernelMemory.now().killed_since(self._memory_before)


def _read(kind: type[T], path: Path) -> T | None:
    """A record; None if there is none that can be read."""
    try:
        return records.read(kind, path)
    except (OSError, ValueError):
        return None


def _progress(line: str) -> Progress | None:
    """The progress that a line tells; None if a full disk has torn the line."""
    try:
        return records.from_json(Progress, json.loads(line))
    except ValueError:
        return None


def _end_group(process: subprocess.Popen[bytes], members: Members, grace_s: float) -> None:
    """Close the pipe, wait for every process of the GPU side, and kill what takes too long."""
    if process.stdin:
        process.stdin.close()
    deadline = time.monotonic() + grace_s
    while members.are_alive(process):
        if time.monotonic() > deadline:
            members.kill(process)
        time.sleep(POLL_S / 2)


class _Tail:
    """Reads the complete lines that were added to a text file since the last call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: IO[str] | None = None
        self._rest = ""

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._handle.close()

    def lines(self) -> list[str]:
        if self._handle is None:
            if not self._path.exists():
                return []
            self._handle = self._path.open(encoding="utf-8", errors="replace")
        *complete, self._rest = (self._rest + self._handle.read()).split("\n")
        return complete
