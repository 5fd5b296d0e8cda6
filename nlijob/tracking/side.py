"""The job's end of its trackers' processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from nlijob import stopping
from nlijob.analysis.wording import listed
from nlijob.config import TrackerName
from nlijob.errors import JobError
from nlijob.records.tracking import TrackerState
from nlijob.rundir import RunDir
from nlijob.surroundings import gpu_side_environment
from nlijob.tracking.packages import TITLES
from nlijob.tracking.states import read_state, write_state

FINISH_S = 120.0
"""Longest time for sending what is left, the outcome and the page."""
STOP_S = 5.0
"""Longest time for a tracker to end after a job that failed or was stopped."""
POLL_S = 0.1


class Tracking:
    """The trackers of one attempt; as a context manager it leaves no process running.

    Whatever fails in a tracker, its state says so, and the job goes on.
    """

    def __init__(
        self, run: RunDir, trackers: Sequence[TrackerName], warn: Callable[[str], None]
    ) -> None:
        """`warn` is given one line about each tracker that fails."""
        self._run = run
        self._trackers = trackers
        self._warn = warn
        self._processes: dict[TrackerName, subprocess.Popen[bytes]] = {}
        self._told: set[TrackerName] = set()

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(STOP_S)

    @property
    def at_work(self) -> str:
        """The own names of the trackers that have not failed, as running text; "" for none."""
        working = [name for name in self._trackers if not read_state(self._run, name).fault]
        return listed([TITLES[name] for name in working]) if working else ""

    @property
    def is_complete(self) -> bool:
        """Whether every tracker has been told of the outcome."""
        return all(read_state(self._run, name).is_finished for name in self._trackers)

    def start(self) -> None:
        """Start to follow the records of the run, whose configuration is written."""
        for name in self._trackers:
            state = read_state(self._run, name)
            self._write(dataclasses.replace(state, is_finished=False, fault=""))
            with stopping.delayed_stop():
                self._processes[name] = subprocess.Popen(
                    command_of(name, self._run),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,  # libraries print addresses, which may hold secrets
                    stderr=subprocess.DEVNULL,
                    env=tracker_environment(os.environ),
                    start_new_session=True,
                    bufsize=0,
                )

    def finish(self) -> bool:
        """Have outcome and page sent, which are written; returns whether a tracker failed in it."""
        told = set(self._told)
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")
        for name, fault in self._end(FINISH_S).items():
            self._note(name, fault)
        self.warn_of_faults()
        return self._told != told

    def warn_of_faults(self) -> None:
        """Tell of each tracker that has failed, once."""
        for name in self._trackers:
            fault = read_state(self._run, name).fault
            if fault and name not in self._told:
                self._told.add(name)
                self._warn(f"Note: tracking with {TITLES[name]} failed: {fault}")

    def _end(self, limit_s: float) -> dict[TrackerName, str]:
        """Close the pipes, wait for the processes, and kill what takes too long.

        Returns what was wrong with the ends of some.
        """
        for process in self._processes.values():
            if process.stdin:
                process.stdin.close()
        deadline = time.monotonic() + limit_s
        faults: dict[TrackerName, str] = {}
        for name, process in self._processes.items():
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
            if process.poll() is None:
                faults[name] = f"it did not end within {limit_s:.0f} s"
            elif process.returncode:
                faults[name] = f"its process ended with status {process.returncode}"
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # some start processes of their own
            process.wait()
        self._processes.clear()
        return faults

    def _note(self, name: TrackerName, fault: str) -> None:
        """Record a fault that the tracker's process could not record itself."""
        state = read_state(self._run, name)
        if not state.fault and not state.is_finished:
            self._write(dataclasses.replace(state, fault=fault))

    def _write(self, state: TrackerState) -> None:
        with contextlib.suppress(OSError, JobError):  # a full disk ends the job elsewhere
            write_state(self._run, state)


def command_of(name: TrackerName, run: RunDir) -> list[str]:
    """argv of the process that tells a tracker about a run."""
    return [sys.executable, "-m", "nlijob.tracking", name, str(run.root.absolute())]


def tracker_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Environment of a tracker's process, which uses no GPU and may use the network."""
    kept = gpu_side_environment(own)
    kept["HF_HUB_OFFLINE"] = own.get("HF_HUB_OFFLINE", "0")
    return {**kept, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
