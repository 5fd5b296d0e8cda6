"""Faults of the disk are told from other errors, and name the folder, the free and needed space."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from nlijob import disk
from nlijob.disk import disk_fault, disk_faults
from nlijob.ending import end_of
from nlijob.errors import DiskError, ExitCode, NotAvailableError
from nlijob.files import atomic_write
from nlijob.rundir import RunDir


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", disk.REASONS)
def test_an_error_that_only_the_disk_gives_ends_with_74(number: int) -> None:
    assert end_of(os_error(number)).exit_code == ExitCode.DISK


@pytest.mark.parametrize("number", disk.REASONS_OF_A_PATH)
def test_an_error_that_names_a_path_ends_with_74(number: int) -> None:
    end = end_of(os_error(number, "/runs/demo/x"))
    assert end.exit_code == ExitCode.DISK
    assert end.message.startswith("/runs/demo/x: ")


@pytest.mark.parametrize("number", disk.REASONS_OF_A_PATH)
def test_the_same_error_of_something_else_does_not(number: int) -> None:
    assert end_of(os_error(number)).exit_code != ExitCode.DISK


@pytest.mark.parametrize(
    "text",
    [
        "I/O error: No space left on device (os error 28)",
        "Error while serializing: IoError(Os { code: 27, message: 'File too large' })",
        "[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0",
        "PytorchStreamWriter failed writing file data/0: file write failed",
        "quota: (os error 122)",
    ],
)
def test_libraries_that_only_have_words_for_it_are_understood(text: str) -> None:
    assert end_of(RuntimeError(text)).exit_code == ExitCode.DISK


def test_no_folder_for_temporary_files_is_the_disks_fault() -> None:
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    end = end_of(error)
    assert end.exit_code == ExitCode.DISK
    assert "TMPDIR" in end.message


@pytest.mark.parametrize("error", [KeyError, ValueError, TypeError])
def test_a_text_of_the_data_is_not_taken_for_an_error(error: type[Exception]) -> None:
    assert end_of(error("No space left on device")).exit_code == ExitCode.INTERNAL


def test_a_full_disk_behind_another_error_is_found() -> None:
    covering = RuntimeError("cannot save")
    covering.__cause__ = os_error(errno.ENOSPC)
    assert disk_fault(covering) is not None


def test_a_download_that_fails_on_a_full_disk_ends_with_74_and_says_what_failed() -> None:
    failed = NotAvailableError("model x/y is not available")
    failed.__cause__ = os_error(errno.ENOSPC, "/cache/part")
    end = end_of(failed)
    assert end.exit_code == ExitCode.DISK
    assert end.message.startswith("model x/y is not available: /cache/part: the disk is full")


def test_data_that_may_not_be_read_are_not_the_disks_fault() -> None:
    failed = NotAvailableError("data/train.csv cannot be read")
    failed.__cause__ = os_error(errno.EACCES, "data/train.csv")
    assert end_of(failed).exit_code == ExitCode.NOT_AVAILABLE


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), FileNotFoundError(2, "x", "y")])
def test_other_errors_stay_as_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, disk_faults(tmp_path):
        raise error
    assert caught.value is error


def test_a_full_disk_says_what_is_free_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_200_000))
    fault = disk_fault(os_error(errno.ENOSPC, str(tmp_path / "state.pt")), None, 34_500_000)
    assert fault is not None
    assert fault.message == f"{tmp_path}/state.pt: the disk is full; 1.2 MB free; 34.5 MB needed"
    assert "the same command then continues" in fault.hint


def test_without_a_name_the_fullest_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    for folder in (run, cache):
        folder.mkdir()
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: SimpleNamespace(free=0 if path == cache else 9e9)
    )
    fault = disk_fault(os_error(errno.ENOSPC), run)
    assert fault is not None
    assert fault.message.startswith(f"{cache}: the disk is full; 0 B free")


def test_a_file_above_the_limit_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DiskError, match="ulimit -f"), atomic_write(tmp_path / "x") as handle:
            handle.write(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise os_error(errno.ENOTSUP)

    monkeypatch.setattr("nlijob.rundir.fcntl.flock", refuse)
    with pytest.raises(DiskError, match="offers no locks"), RunDir(tmp_path).lock():
        pass
