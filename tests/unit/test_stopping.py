"""Stop signals and the pipe to the parent, tested in separate processes because they end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nlijob import stopping
from nlijob.ending import end_of
from nlijob.errors import HardwareError
from nlijob.stopping import Stopped
from tests.jobs import ROOT, hearing_hang_ups

BODY = """
import os, signal, sys, time
from nlijob import stopping
from nlijob.ending import end_of
from nlijob.errors import HardwareError

stopping.raise_on_signals()
try:
    {start}
    print("ready", flush=True)
    try:
        for _ in range(6000):  # a signal that comes just before a sleep begins is met after it
            time.sleep(0.1)
    except Exception:
        print("swallowed")
except stopping.Stopped as stop:
    stopping.shutdown_begins()
    {stopped}
    print("stopped by", stop)
"""


@contextmanager
def started(start: str = "pass", stopped: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """A waiting process that has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", BODY.format(start=start, stopped=stopped)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def last_words(process: subprocess.Popen[str]) -> str:
    shown, _ = process.communicate(timeout=60)
    return shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_raises_stopped_with_its_name(number: signal.Signals) -> None:
    with hearing_hang_ups(), started() as process:
        process.send_signal(number)
        assert last_words(process) == f"stopped by {number.name}\n"


def test_a_hang_up_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the process inherits
    try:
        with started() as process:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert last_words(process) == "stopped by SIGTERM\n"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_interrupt_the_shutdown() -> None:
    ways_out = "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)"
    with started(stopped=ways_out) as process:
        process.send_signal(signal.SIGTERM)
        assert last_words(process) == "stopped by SIGTERM\n"


def test_the_end_of_the_lifeline_stops_the_process() -> None:
    with started("stopping.stop_when_closed(sys.stdin.fileno())") as process:
        assert process.stdin
        process.stdin.write("still here")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.stdin.close()
        process.stdin = None
        assert last_words(process) == "stopped by SIGTERM\n"


def test_before_the_first_byte_the_process_ends_at_once() -> None:
    with started("stopping.stop_when_closed(0)") as process:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
        assert last_words(process) == ""
        assert process.returncode == 75


def test_a_shutdown_that_hangs_ends_after_its_grace() -> None:
    with started("stopping.stop_when_closed(0, grace_s=1.0)", "time.sleep(600)") as process:
        assert process.stdin
        process.stdin.write("go")
        process.stdin.close()
        process.stdin = None
        assert last_words(process) == ""
        assert process.returncode == 75


FINALIZER = """
    class Lost:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
    Lost()"""
SWALLOWED = """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
    except BaseException:
        pass"""


@pytest.mark.parametrize("lost", [FINALIZER, SWALLOWED])
def test_a_stop_that_is_lost_is_raised_again(lost: str) -> None:
    with started(lost) as process:
        assert last_words(process) == "stopped by SIGTERM\n"


def test_a_stop_that_is_on_its_way_is_not_raised_again() -> None:
    # 0.5 s is longer than it takes until a stop that was lost is raised again
    cleaned_up = """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
    finally:
        try:
            time.sleep(0.5)
            raise ValueError
        except ValueError:
            time.sleep(0.5)
        print("cleaned up")"""
    done = subprocess.run(
        [sys.executable, "-c", BODY.format(start=cleaned_up, stopped="time.sleep(0.5)")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == ["cleaned up", "stopped by SIGTERM"]


def test_the_first_byte_sets_the_event() -> None:
    start = "told = stopping.stop_when_closed(0); print('ready', flush=True); told.wait()"
    with started(start) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("go")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"  # the second one


def test_the_first_byte_is_left_for_the_other_processes_that_share_the_pipe() -> None:
    start = (
        "told = stopping.stop_when_closed(0); print('ready', flush=True); told.wait(); "
        "print(os.read(0, 9), flush=True)"
    )
    with started(start) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "b'\\n'\n"


STUCK = """
    import ctypes
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    stopping.exit_where_stop_is_late(grace_s=0.5)
    told = False
    while True:
        try:
            if not told:
                told = True
                print('ready', flush=True)
            libc.pthread_mutex_lock(mutex)  # for ever, and no signal interrupts it
        except stopping.Stopped:  # the signal came before that
            pass"""


def test_a_stop_ends_a_process_whose_main_thread_never_returns_from_a_library() -> None:
    with started(STUCK) as one:
        one.send_signal(signal.SIGTERM)
        assert last_words(one) == ""
        assert one.returncode == 75


def test_no_library_that_catches_exceptions_swallows_a_stop() -> None:
    assert not issubclass(Stopped, Exception)


def test_a_stop_waits_for_a_block_that_must_not_be_interrupted() -> None:
    begin = """with stopping.delayed_stop():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        print("whole", flush=True)"""
    done = subprocess.run(
        [sys.executable, "-c", BODY.format(start=begin, stopped="pass")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == ["whole", "stopped by SIGINT"]


def test_a_pipe_is_open_until_its_writer_closes_it() -> None:
    reading, writing = os.pipe()
    try:
        assert stopping.is_open(reading)
        os.write(writing, b"x")
        assert stopping.is_open(reading)
        os.close(writing)
        assert not stopping.is_open(reading)
    finally:
        os.close(reading)


def test_an_error_that_a_stop_causes_within_a_library_is_a_stop() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as after a stop signal
    try:
        assert end_of(RuntimeError("release unlocked lock")).exit_code == 75
        assert end_of(HardwareError("too small")).exit_code == 5
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end_of(RuntimeError("release unlocked lock")).exit_code == 70
