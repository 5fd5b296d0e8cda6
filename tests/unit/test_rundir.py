"""Completion markers, the lock, and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob import records, rundir
from nlijob.errors import ConfigurationError
from nlijob.records.job import FORMAT_VERSION, FileStamp, Marker, Timing
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


def test_a_flipped_byte_voids_a_marker_although_size_and_times_are_the_same(
    marked: RunDir,
) -> None:
    file = marked.epoch(1) / "adapter" / "weights"
    state = file.stat()
    file.write_text("12344", encoding="utf-8")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert RunDir(marked.root).changed({}) == []
    assert not RunDir(marked.root).is_complete("train", F.fingerprint)
    assert not marked.is_complete("train", F.fingerprint)  # also where the file was hashed before


def test_a_marker_lists_size_and_hash_of_what_it_was_given_and_nothing_else(run: RunDir) -> None:
    write_text(run.train_result, "{}")
    (run.train_folder / ".result.json.7.tmp").write_text("left behind")
    run.mark_complete("train", F, [run.train_result])
    marker = run.read_marker("train")
    assert marker is not None
    sha256 = hashlib.sha256(b"{}").hexdigest()
    assert marker.files == {"train/result.json": FileStamp(2, sha256)}
    assert (marker.inputs, marker.fingerprint) == (F, F.fingerprint)


def test_an_unchanged_file_is_hashed_once(marked: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = RunDir(marked.root)
    assert fresh.is_complete("train", F.fingerprint)
    monkeypatch.setattr(rundir, "sha256_of", lambda pieces: [0 / 0 for _ in pieces])
    assert fresh.is_complete("train", F.fingerprint)


def test_files_needed_only_to_continue_may_be_deleted_but_not_changed(run: RunDir) -> None:
    write_text(run.epoch_result(1), "{}")
    write_text(run.training_state(1), "state")
    run.mark_complete("train-epoch-1", F, [run.epoch_result(1)], [run.training_state(1)])
    assert run.can_continue_from("train-epoch-1")
    write_text(run.training_state(1), "stave")
    assert not run.can_continue_from("train-epoch-1")
    run.training_state(1).unlink()
    assert not run.can_continue_from("train-epoch-1")
    assert run.is_complete("train-epoch-1", F.fingerprint)


def test_a_marker_without_files_to_continue_is_none_to_continue_from(marked: RunDir) -> None:
    assert not marked.can_continue_from("train")


def test_a_marker_of_another_format_is_void(marked: RunDir) -> None:
    path = marked.marker("train")
    marker = records.read(Marker, path)
    write_text(path, records.dump(replace(marker, format_version=FORMAT_VERSION + 1)))
    assert not marked.is_complete("train", F.fingerprint)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff\xfe{}", b"[" * 100_000, b"1" * 5000, b"\0" * 99]
)
def test_a_damaged_marker_is_void(marked: RunDir, content: bytes) -> None:
    marked.marker("train").write_bytes(content)
    assert not marked.is_complete("train", F.fingerprint)
    assert not marked.is_of_other_inputs("train", G.fingerprint)


def test_unmark_deletes_a_marker_and_may_be_repeated(marked: RunDir) -> None:
    marked.unmark("train")
    marked.unmark("train")
    assert not marked.is_complete("train", F.fingerprint)


@pytest.mark.parametrize("depth", [1, 100, 300, 450, 600, 900])
def test_a_marker_with_other_or_deeply_nested_inputs_is_void(marked: RunDir, depth: int) -> None:
    path = marked.marker("train")
    nested = "[" * depth + "]" * depth
    text = path.read_text("utf-8").replace('"settings": {}', f'"settings": {{"x": {nested}}}')
    path.write_text(text, encoding="utf-8")
    assert json.loads(path.read_text("utf-8"))["inputs"]["settings"].keys() == {"x"}
    assert not marked.is_complete("train", F.fingerprint)
    assert marked.read_marker("train") is None


def test_a_marker_replaced_by_a_folder_is_void_and_can_be_written_again(marked: RunDir) -> None:
    marked.marker("train").unlink()
    write_text(marked.marker("train") / "inside", "x")
    assert not marked.is_complete("train", F.fingerprint)
    marked.unmark("train")
    marked.mark_complete("train", F, [marked.train_result])
    assert marked.is_complete("train", F.fingerprint)


def test_a_moved_run_stays_complete(marked: RunDir, tmp_path: Path) -> None:
    moved = RunDir(marked.root.rename(tmp_path / "elsewhere"))
    assert moved.is_complete("train", F.fingerprint)


def test_only_another_fingerprint_means_other_inputs(marked: RunDir) -> None:
    assert marked.is_of_other_inputs("train", G.fingerprint)
    assert not marked.is_of_other_inputs("train", F.fingerprint)
    assert not marked.is_of_other_inputs("subset", G.fingerprint)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train-step-2-40", (2, 40)),
        ("train-step-12-3", (12, 3)),
        *((name, None) for name in ("train-step-2", "train-step-2-x", "train-step-2-040")),
        *((name, None) for name in ("train-epoch-2", "train-step-2-40-1", "train-step-²-1")),
    ],
)
def test_a_marker_within_an_epoch_tells_its_step(name: str, place: tuple[int, int] | None) -> None:
    assert rundir.epoch_and_step(name) == place


def test_checkpoints_within_epochs_are_found_the_latest_first(run: RunDir) -> None:
    for place in ((2, 9), (2, 40), (10, 1)):
        write_text(run.step_state(*place), "state")
        run.mark_complete(rundir.step_marker(*place), made_from("a"), [run.step_state(*place)])
    assert run.marked_steps() == [(10, 1), (2, 40), (2, 9)]
    assert run.count_marked_epochs() == 0


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


def test_a_lock_replaced_by_a_folder_is_made_again(run: RunDir) -> None:
    write_text(run.root / ".lock" / "inside", "x")
    with run.lock():
        assert (run.root / ".lock").is_file()


def test_a_process_that_may_wait_gets_the_lock_when_it_is_free(run: RunDir) -> None:
    with contextlib.ExitStack() as other:
        other.enter_context(run.lock())
        with run.lock(on_wait=other.close):
            pass


def test_the_next_attempt_waits_for_the_gpu_side_of_a_killed_one(run: RunDir) -> None:
    code = (
        "import sys; from pathlib import Path; from nlijob.rundir import RunDir\n"
        "RunDir(Path(sys.argv[1])).reserve_for_gpu_side(); print('held', flush=True); input()"
    )
    argv = [sys.executable, "-c", code, str(run.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as earlier:
        assert earlier.stdin
        assert earlier.stdout
        assert earlier.stdout.readline() == b"held\n"
        ends = threading.Timer(0.3, earlier.stdin.close)
        ends.start()
        with run.lock():
            assert earlier.wait() is not None
    with run.lock():  # and nobody waits for one that has ended
        pass


def test_a_gpu_side_that_does_not_end_is_reported(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "GPU_SIDE_ENDS_S", 0.0)
    working = RunDir(run.root)
    working.reserve_for_gpu_side()
    with pytest.raises(ConfigurationError, match="still works on"), run.lock():
        pass


def test_a_folder_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is not writable"):
        RunDir(tmp_path / "file" / "job").lock().__enter__()


# ---------------------------------------------------------------- setting a run aside


def test_a_run_set_aside_leaves_an_empty_locked_folder(marked: RunDir) -> None:
    with marked.lock():
        previous = marked.set_aside()
        assert marked.marked() == []
        with pytest.raises(ConfigurationError), RunDir(marked.root).lock():
            pass
    assert previous == marked.root.with_name("job.previous") == marked.previous
    assert RunDir(previous).is_complete("train", F.fingerprint)
    with marked.lock(), RunDir(previous).lock():  # both are free again
        pass


def test_an_earlier_run_that_was_set_aside_is_replaced(marked: RunDir) -> None:
    write_text(marked.previous / "old", "x")
    with marked.lock():
        marked.set_aside()
    assert not (marked.previous / "old").exists()
    assert (marked.previous / "markers").is_dir()


def test_a_folder_that_cannot_be_renamed_is_reported_and_kept(
    marked: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with marked.lock(), pytest.raises(ConfigurationError, match=r"cannot be renamed.*busy"):
        marked.set_aside()
    assert marked.is_complete("train", F.fingerprint)


# ---------------------------------------------------------------- damage


def test_what_is_no_file_where_a_file_belongs_is_deleted(marked: RunDir) -> None:
    for file in (marked.config, marked.hardware, marked.subset("test"), marked.evaluate_result):
        write_text(file / "inside", "x")
    marked.results.symlink_to("nowhere")
    os.mkfifo(marked.timings)
    wrong = {"config.json", "hardware.jsonl", "subset/test.jsonl", "evaluate/result.json"}
    assert {*marked.clear_misplaced()} == {*wrong, "results.json", "timings.jsonl"}
    append_record(marked.timings, TIMING)
    write_text(marked.results, "{}")
    assert marked.is_complete("train", F.fingerprint)


@pytest.mark.parametrize("folder", ["markers", "subset", "worker", "evaluate", "adapter"])
def test_a_file_where_a_folder_belongs_is_deleted(run: RunDir, folder: str) -> None:
    run.root.mkdir(parents=True)
    (run.root / folder).write_text("x")
    assert run.clear_misplaced() == [folder]
    write_text(run.root / folder / "file", "x")


def test_links_to_files_and_folders_are_left_alone(run: RunDir, tmp_path: Path) -> None:
    run.root.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").touch()
    run.train_folder.symlink_to(tmp_path / "elsewhere")
    run.config.symlink_to(tmp_path / "file")
    assert run.clear_misplaced() == []


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


@pytest.mark.parametrize("torn", ["{", '{"attempt": 1, "st', "\0\0\0"])
def test_an_appended_record_never_joins_a_torn_line(run: RunDir, torn: str) -> None:
    append_record(run.timings, TIMING)
    with run.timings.open("a", encoding="utf-8") as handle:
        handle.write(torn)
    append_record(run.timings, TIMING)
    append_record(run.timings, TIMING)
    assert records.read_log(Timing, run.timings) == ([TIMING] * 3, 1)


def test_appended_records_follow_the_existing_ones(run: RunDir) -> None:
    append_record(run.timings, TIMING)
    append_record(run.timings, replace(TIMING, attempt=2))
    assert [t.attempt for t in records.read_lines(Timing, run.timings)] == [1, 2]
