"""Completion markers, the lock, and atomic writes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob import records, rundir
from nlijob.errors import ConfigurationError
from nlijob.records.job import FORMAT_VERSION, Marker, Timing
from nlijob.rundir import RunDir, append_record, write_records, write_text
from tests.markers import made_from

F, G = made_from("f"), made_from("g")
TIMING = Timing(1, "train", "é", 1.0, 2.0)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "job")


@pytest.fixture
def marked(run: RunDir) -> RunDir:
    """A run whose stage "train" is complete with the inputs F."""
    write_text(run.train_result, "{}")
    write_text(run.epoch(1) / "adapter" / "weights", "12345")
    run.mark_complete("train", F, [run.train_result, run.epoch(1) / "adapter" / "weights"])
    return run


# ---------------------------------------------------------------- markers


def test_a_stage_is_complete_once_its_marker_is_written(run: RunDir) -> None:
    write_text(run.train_result, "{}")
    assert not run.is_complete("train", F.fingerprint)
    run.mark_complete("train", F, [run.train_result])
    assert run.is_complete("train", F.fingerprint)


def test_the_marker_is_written_after_its_files_are_synced(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(run.train_result, "{}")
    order: list[str] = []
    monkeypatch.setattr(rundir, "sync", lambda path: order.append(path.name))
    monkeypatch.setattr(rundir, "write_text", lambda path, _: order.append(path.name))
    run.mark_complete("train", F, [run.train_result])
    assert order == ["result.json", "train.json"]


def test_a_stage_with_a_missing_output_cannot_be_marked(run: RunDir) -> None:
    with pytest.raises(FileNotFoundError):
        run.mark_complete("train", F, [run.train_result])
    assert not run.is_complete("train", F.fingerprint)


def test_another_fingerprint_voids_a_marker(marked: RunDir) -> None:
    assert not marked.is_complete("train", G.fingerprint)


def test_a_missing_file_voids_a_marker(marked: RunDir) -> None:
    marked.train_result.unlink()
    assert not marked.is_complete("train", F.fingerprint)


def test_a_resized_file_within_a_marked_folder_voids_a_marker(marked: RunDir) -> None:
    (marked.epoch(1) / "adapter" / "weights").write_text("123", encoding="utf-8")
    assert not marked.is_complete("train", F.fingerprint)


def test_a_marker_of_another_format_is_void(marked: RunDir) -> None:
    path = marked.marker("train")
    marker = records.read(Marker, path)
    write_text(path, records.dump(replace(marker, format_version=FORMAT_VERSION + 1)))
    assert not marked.is_complete("train", F.fingerprint)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_marker_is_void(marked: RunDir, text: str) -> None:
    marked.marker("train").write_text(text, encoding="utf-8")
    assert not marked.is_complete("train", F.fingerprint)
    assert not marked.is_of_other_inputs("train", G.fingerprint)


def test_unmark_deletes_a_marker_and_may_be_repeated(marked: RunDir) -> None:
    marked.unmark("train")
    marked.unmark("train")
    assert not marked.is_complete("train", F.fingerprint)


def test_a_moved_run_stays_complete(marked: RunDir, tmp_path: Path) -> None:
    moved = RunDir(marked.root.rename(tmp_path / "elsewhere"))
    assert moved.is_complete("train", F.fingerprint)


def test_only_another_fingerprint_means_other_inputs(marked: RunDir) -> None:
    assert marked.is_of_other_inputs("train", G.fingerprint)
    assert not marked.is_of_other_inputs("train", F.fingerprint)
    assert not marked.is_of_other_inputs("subset", G.fingerprint)


# ---------------------------------------------------------------- the lock


def test_only_one_process_can_lock_a_run(run: RunDir) -> None:
    code = (
        "import sys; from pathlib import Path; from nlijob.rundir import RunDir\n"
        "with RunDir(Path(sys.argv[1])).lock(): print('held')"
    )
    argv = [sys.executable, "-c", code, str(run.root)]
    with run.lock():
        refused = subprocess.run(argv, capture_output=True, text=True, check=False)
    granted = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "another job is working on" in refused.stderr
    assert granted.stdout == "held\n"


def test_a_second_job_on_a_run_gets_a_hint(run: RunDir) -> None:
    with run.lock(), pytest.raises(ConfigurationError) as caught, run.lock():
        pass
    assert "--run-id" in caught.value.hint


def test_a_process_that_may_wait_gets_the_lock_when_it_is_free(run: RunDir) -> None:
    with contextlib.ExitStack() as other:
        other.enter_context(run.lock())
        with run.lock(on_wait=other.close):
            pass


def test_a_folder_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is not writable"):
        RunDir(tmp_path / "file" / "job").lock().__enter__()


# ---------------------------------------------------------------- writing


def test_missing_folders_are_created(run: RunDir) -> None:
    write_text(run.train_result, "é")
    assert run.train_result.read_bytes() == "é".encode()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_records_that_fail_while_being_written_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_records(path, [TIMING])

    def broken() -> Iterator[Any]:
        yield TIMING
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert list(records.read_lines(Timing, path)) == [TIMING]


def test_appended_records_follow_the_existing_ones(run: RunDir) -> None:
    append_record(run.timings, TIMING)
    append_record(run.timings, replace(TIMING, attempt=2))
    assert [t.attempt for t in records.read_lines(Timing, run.timings)] == [1, 2]
