"""Every error has one reading as an end."""

from __future__ import annotations

import click
import pytest

from nlijob.ending import end_of
from nlijob.errors import DivergedError, ExitCode
from nlijob.stopping import Stopped


def test_no_error_is_done() -> None:
    assert end_of(None) == (ExitCode.DONE, "", "")


def test_a_known_error_says_its_own() -> None:
    assert end_of(DivergedError("nan", "lower it")) == (ExitCode.DIVERGED, "nan", "lower it")


@pytest.mark.parametrize("stop", [Stopped("SIGINT"), KeyboardInterrupt(), click.Abort()])
def test_every_way_to_stop_is_a_stop(stop: BaseException) -> None:
    assert end_of(stop).exit_code == ExitCode.STOPPED


def test_a_stop_names_its_signal() -> None:
    assert end_of(Stopped("SIGTERM")).message == "stopped (SIGTERM)"


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(0), MemoryError()])
def test_anything_else_is_a_fault_of_the_job(error: BaseException) -> None:
    assert end_of(error).exit_code == ExitCode.INTERNAL
