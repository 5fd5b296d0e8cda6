"""The exit code, message and hint of every kind of error."""

from __future__ import annotations

import sys

import click
import pytest

from nlijob.ending import end_of
from nlijob.errors import DivergedError, ExitCode
from nlijob.stopping import Stopped


def test_a_command_without_an_error_is_done() -> None:
    assert end_of(None) == (ExitCode.DONE, "", "")


def test_a_known_error_has_its_own_code_message_and_hint() -> None:
    assert end_of(DivergedError("nan", "lower it")) == (ExitCode.DIVERGED, "nan", "lower it")


@pytest.mark.parametrize("stop", [Stopped("SIGINT"), KeyboardInterrupt(), click.Abort()])
def test_every_kind_of_stop_ends_with_75(stop: BaseException) -> None:
    assert end_of(stop).exit_code == ExitCode.STOPPED


def test_a_stop_names_its_signal() -> None:
    assert end_of(Stopped("SIGTERM")).message == "stopped (SIGTERM)"


def test_a_package_that_is_not_installed_is_named() -> None:
    end = end_of(ModuleNotFoundError("No module named 'flash.attn'", name="flash.attn"))
    assert end.exit_code == ExitCode.CONFIGURATION
    assert end.message == f"the package flash is not installed for {sys.executable}"


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError("x"), SystemExit(0), OSError("x"), ImportError("x")),
        ModuleNotFoundError("No module named 'nlijob.nothing'", name="nlijob.nothing"),
    ],
)
def test_every_other_error_is_a_bug(error: BaseException) -> None:
    assert end_of(error).exit_code == ExitCode.INTERNAL
