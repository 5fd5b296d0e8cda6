"""A run is uploaded during its job, and a partial copy is never taken for a complete one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlijob.errors import HardwareError, StoppedError
from nlijob.rundir import RunDir, step_marker, write_text
from nlijob.stopping import Stopped
from nlijob.storage import contents, mirror
from nlijob.storage.mirror import Mirror
from nlijob.storage.place import Place
from tests.faulty_place import (
    FaultyFileSystem,
    complete,
    complete_epoch,
    complete_run,
    complete_step,
)

LIMIT_S = 120.0
TRAININGS = ("", "trials/seed-43")
"""Folders of a training: the only one of its run, and one of several."""


def sent_now(run: RunDir, place: Place) -> list[str]:
    """The lines told by a mirror that is entered and left at once."""
    told: list[str] = []
    with Mirror(run, place, told.append):
        pass
    return told


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def puts() -> list[str]:
    return [name for operation, name in FaultyFileSystem.calls if operation == "put"]


def copied(run: RunDir) -> dict[str, str]:
    return {name: (run.root / name).read_text("utf-8") for name in contents.stamps(run.root)}


# ---------------------------------------------------------------- what is sent, and when


def test_the_whole_run_is_uploaded_in_the_end(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    assert sent_now(run, place) == ["Uploaded: faulty://bucket/prefix/job"]
    assert FaultyFileSystem.files() == copied(run)


def test_complete_stages_are_uploaded_while_the_job_continues(run: RunDir, place: Place) -> None:
    with Mirror(run, place, print):
        for epoch in (1, 2):
            complete_epoch(run, epoch, "a")
            # the state of the epoch before goes away after the marker: perhaps one round later
            wait_until(lambda: copied(run).items() <= FaultyFileSystem.files().items())


def test_nothing_is_uploaded_before_a_stage_is_complete(run: RunDir, place: Place) -> None:
    FaultyFileSystem.store.clear()
    place.write("markers/subset.json", b"another run's")
    write_text(run.config, "{}")
    sent_now(run, place)
    assert set(FaultyFileSystem.files()) == {"markers/subset.json"}


def test_a_stage_that_is_complete_at_the_very_end_is_uploaded(run: RunDir, place: Place) -> None:
    with Mirror(run, place, print):
        complete_run(run, "a")
    assert FaultyFileSystem.files() == copied(run)


def test_markers_are_uploaded_after_all_files_that_they_list(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    sent_now(run, place)
    order = puts()
    for name, content in contents.markers(run.root).items():
        for file in contents.listed(content):
            assert order.index(file) < order.index(name)
    state, marker = "train/state-2.pt", "markers/train-epoch-2.json"
    assert order.index(state) < order.index(marker)


def test_only_changed_files_are_uploaded(run: RunDir, place: Place) -> None:
    complete_run(run, "a", epochs=1)
    with Mirror(run, place, print):
        wait_until(lambda: FaultyFileSystem.files() == copied(run))
        FaultyFileSystem.calls.clear()
        complete_epoch(run, 2, "a")
    assert puts() == [*("train/state-2.pt", "train/epoch-2/adapter", "markers/train-epoch-2.json")]


def test_another_attempt_uploads_no_stage_again(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    sent_now(run, place)
    FaultyFileSystem.calls.clear()
    sent_now(run, place)
    assert puts() == ["config.json"]  # which no marker lists


def test_a_training_state_is_deleted_after_the_next_epoch(run: RunDir, place: Place) -> None:
    with Mirror(run, place, print):
        complete_epoch(run, 1, "a")
        wait_until(lambda: "markers/train-epoch-1.json" in FaultyFileSystem.files())
        complete_epoch(run, 2, "a")
    assert "train/state-1.pt" not in FaultyFileSystem.files()
    assert FaultyFileSystem.calls[-1] == ("remove", "train/state-1.pt")


def test_a_bucket_that_forbids_deletion_keeps_more_files(run: RunDir, place: Place) -> None:
    def refuse(operation: str, _: str) -> None:
        if operation == "remove":
            raise PermissionError("not allowed")

    told: list[str] = []
    with Mirror(run, place, told.append):
        complete_epoch(run, 1, "a")
        wait_until(lambda: "markers/train-epoch-1.json" in FaultyFileSystem.files())
        FaultyFileSystem.before = staticmethod(refuse)
        complete_epoch(run, 2, "a")
    assert copied(run).items() <= FaultyFileSystem.files().items()
    assert told == ["Uploaded: faulty://bucket/prefix/job"]


def test_a_file_that_is_deleted_meanwhile_is_not_an_error(run: RunDir, place: Place) -> None:
    complete_run(run, "a")

    def go_away(operation: str, path: str) -> None:
        if operation == "put" and path.endswith("state-2.pt"):
            run.training_state(2).unlink()

    FaultyFileSystem.before = staticmethod(go_away)
    assert sent_now(run, place) == ["Uploaded: faulty://bucket/prefix/job"]


# ---------------------------------------------------------------- checkpoints within epochs


def test_a_checkpoint_within_an_epoch_is_uploaded_and_replaced(run: RunDir, place: Place) -> None:
    with Mirror(run, place, print):
        for step in (40, 80):
            complete_step(run, 2, step, "a")
            marker = f"markers/train-step-2-{step}.json"
            wait_until(lambda marker=marker: marker in FaultyFileSystem.files())  # type: ignore[misc]
    # The earlier state may go away after the round that its marker's deletion started.
    assert "train/state-2-40.pt" not in FaultyFileSystem.files()
    assert FaultyFileSystem.files() == copied(run)


def whole_steps() -> list[str]:
    """Markers of whole checkpoints within epochs in the copy."""
    files = FaultyFileSystem.files()
    sizes = {name: len(content) for name, content in files.items()}
    return [
        name
        for name, content in files.items()
        if name.startswith("markers/")
        and "/train-step" in name
        and contents.is_valid(content.encode(), sizes)
    ]


def test_an_earlier_checkpoint_that_is_half_deleted_stays_until_the_next_one_is_uploaded(
    run: RunDir, place: Place
) -> None:
    complete_step(run, 2, 40, "a")
    with Mirror(run, place, print):
        wait_until(lambda: bool(whole_steps()))
        seen: list[list[str]] = []
        FaultyFileSystem.before = staticmethod(lambda operation, name: seen.append(whole_steps()))
        complete(run, step_marker(2, 80), "a", run.name(run.step_state(2, 80)))
        run.unmark(step_marker(2, 40))  # its file is deleted next
        wait_until(lambda: "markers/train-step-2-80.json" in whole_steps())
    assert seen
    assert all(seen)
    assert whole_steps() == ["markers/train-step-2-80.json"]


@pytest.mark.parametrize("training", TRAININGS)
def test_the_copy_has_a_checkpoint_within_the_epoch_at_every_moment(
    run: RunDir, place: Place, training: str
) -> None:
    view = run.view(training)
    with Mirror(run, place, print):
        complete_step(view, 2, 40, "a")
        wait_until(lambda: bool(whole_steps()))
        seen: list[list[str]] = []
        FaultyFileSystem.before = staticmethod(lambda operation, name: seen.append(whole_steps()))
        complete_step(view, 2, 80, "a")
        wait_until(lambda: run.name(view.marker("train-step-2-80")) in whole_steps())
    assert seen
    assert all(seen)


@pytest.mark.parametrize("training", TRAININGS)
def test_a_checkpoint_that_is_replaced_while_a_round_begins_stays_until_the_next_is_there(
    run: RunDir, place: Place, monkeypatch: pytest.MonkeyPatch, training: str
) -> None:
    view = run.view(training)
    earlier, later = (run.name(view.marker(f"train-step-2-{step}")) for step in (40, 80))
    complete_step(view, 2, 40, "a")
    sent_now(run, place)
    read = contents.markers

    def replace_after(root: Path) -> dict[str, bytes]:
        found = read(root)
        if later not in found:
            complete_step(view, 2, 80, "a")
        return found

    upload = Mirror(run, place, print)
    upload._remote, upload._is_remote_known = upload._remote_state(), True
    monkeypatch.setattr(contents, "markers", replace_after)
    FaultyFileSystem.calls.clear()
    upload._round()
    new, old = ("put", later), ("remove", earlier)
    assert FaultyFileSystem.calls.index(new) < FaultyFileSystem.calls.index(old)


def test_a_checkpoint_that_is_half_deleted_stays_until_the_next_is_there(
    run: RunDir, place: Place
) -> None:
    complete_step(run, 2, 40, "a")
    upload = Mirror(run, place, print)
    upload._round()
    state = run.step_state(2, 40).read_bytes()
    kept = run.step_state(2, 40).with_suffix(".kept")
    run.step_state(2, 40).rename(kept)
    run.step_state(2, 40).write_bytes(state)
    complete_step(run, 2, 80, "a")
    kept.rename(run.step_state(2, 40))  # the marker is gone, its file is not
    FaultyFileSystem.calls.clear()
    upload._round()
    new, old = ("put", "markers/train-step-2-80.json"), ("remove", "markers/train-step-2-40.json")
    assert FaultyFileSystem.calls.index(new) < FaultyFileSystem.calls.index(old)


def test_a_checkpoint_that_another_run_left_is_deleted(run: RunDir, place: Place) -> None:
    complete_step(run, 2, 40, "b")
    sent_now(run, place)
    run.unmark("train-step-2-40")
    complete_step(run, 2, 40, "a")
    run.step_state(2, 40).write_text("half of", "utf-8")  # a new one is being written
    run.unmark("train-step-2-40")
    complete(run, "subset", "a", "subset/test.jsonl")
    sent_now(run, place)
    assert "markers/train-step-2-40.json" not in FaultyFileSystem.files()


# ---------------------------------------------------------------- other runs, stages done anew


def test_the_marker_of_a_stage_that_is_repeated_is_deleted(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    sent_now(run, place)
    FaultyFileSystem.calls.clear()
    run.unmark("report")
    write_text(run.report, "half of it")
    sent_now(run, place)
    changes = [call for call in FaultyFileSystem.calls if call[0] in ("put", "remove")]
    assert changes.index(("remove", "markers/report.json")) < changes.index(("put", "report.html"))
    assert "markers/report.json" not in FaultyFileSystem.files()


def test_a_marker_is_not_uploaded_if_its_stage_is_repeated_meanwhile(
    run: RunDir, place: Place
) -> None:
    complete_run(run, "a")

    def begin_anew(operation: str, path: str) -> None:
        if operation == "put" and path.endswith("report.html"):
            run.unmark("report")

    FaultyFileSystem.before = staticmethod(begin_anew)
    sent_now(run, place)
    assert "markers/report.json" not in puts()
    assert "markers/subset.json" in puts()


def test_an_invalid_marker_is_not_uploaded(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    write_text(run.report, "of another size")
    sent_now(run, place)
    assert "markers/report.json" not in FaultyFileSystem.files()


def test_what_another_run_left_is_replaced(run: RunDir, place: Place, tmp_path: Path) -> None:
    complete_run(other := RunDir(tmp_path / "other"), "b", epochs=3)
    sent_now(other, place)
    place.write("notes.txt", b"of a person")
    complete_run(run, "a", epochs=2)
    sent_now(run, place)
    assert FaultyFileSystem.files() == {**copied(run), "notes.txt": "of a person"}


def stop_after(operations: int) -> Callable[[str, str], None]:
    """Lets this many operations succeed, and all later ones fail."""
    left = [operations]

    def count(operation: str, path: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("gone")

    return count


def runs_of_valid_markers() -> dict[str, set[str]]:
    """Valid remote marker -> the runs that wrote it and the files that it lists."""
    files = FaultyFileSystem.files()
    sizes = {name: len(content) for name, content in files.items()}
    return {
        name: {
            json.loads(content)["inputs"]["stamp"],
            *(files[file].split()[-1] for file in contents.listed(content.encode())),
        }
        for name, content in files.items()
        if name.startswith("markers/") and contents.is_valid(content.encode(), sizes)
    }


@pytest.mark.parametrize("epochs_there", [1, 3])
@pytest.mark.parametrize("operations", range(40))
def test_no_interrupted_upload_leaves_a_marker_with_files_of_another_run(
    run: RunDir,
    place: Place,
    tmp_path: Path,
    operations: int,
    epochs_there: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror, "ATTEMPTS", 1)
    other = RunDir(tmp_path / "other")
    complete_run(other, "b", epochs=epochs_there)  # names and sizes are alike
    sent_now(other, place)
    complete_run(run, "a", epochs=2)
    FaultyFileSystem.before = staticmethod(stop_after(operations))
    sent_now(run, place)
    vouched_for = runs_of_valid_markers()
    assert all(runs in ({"a"}, {"b"}) for runs in vouched_for.values()), vouched_for
    for epoch in (1, 2):  # an epoch without its own training state cannot be resumed
        state = FaultyFileSystem.files().get(f"train/state-{epoch}.pt", "")
        if vouched_for.get(f"markers/train-epoch-{epoch}.json") == {"a"}:
            assert not state.endswith("b")
    if operations == 39:
        assert FaultyFileSystem.files() == copied(
            run
        )  # otherwise later interruptions would be missed


def test_nothing_is_left_of_a_run_that_is_set_aside(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    sent_now(run, place)
    with run.lock(), Mirror(run, place, lambda _: None):
        run.set_aside()
        write_text(run.config, "config of b")
        complete(run, "subset", "b", "subset/test.jsonl")
    assert FaultyFileSystem.files() == copied(run)
    assert "report.html" not in FaultyFileSystem.files()


def test_nothing_is_left_of_a_finished_run_that_is_only_in_the_copy(
    run: RunDir, place: Place, tmp_path: Path
) -> None:
    other = RunDir(tmp_path / "other")
    complete_run(other, "b")
    complete(other, "evaluate", "b", "evaluate/result.json", "adapter/weights", "results.json")
    sent_now(other, place)
    complete(run, "subset", "a", "subset/test.jsonl")
    write_text(run.config, "config of a")
    sent_now(run, place)
    assert FaultyFileSystem.files() == copied(run)


# ---------------------------------------------------------------- faults


def test_temporary_errors_are_not_reported(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    faults = iter(range(3))

    def fail_at_first(operation: str, _: str) -> None:
        if operation == "put" and next(faults, None) is not None:
            raise OSError("slow down")

    FaultyFileSystem.before = staticmethod(fail_at_first)
    assert sent_now(run, place) == ["Uploaded: faulty://bucket/prefix/job"]
    assert FaultyFileSystem.files() == copied(run)


def away(_: str, __: str) -> None:
    raise OSError("no route\nto the host")


def test_an_unreachable_bucket_is_reported_at_start_and_end_and_changes_nothing(
    run: RunDir, place: Place
) -> None:
    FaultyFileSystem.before = staticmethod(away)
    told: list[str] = []
    with Mirror(run, place, told.append):
        complete_run(run, "a")
    assert told == [
        "Note: no answer from faulty://bucket/prefix/job (OSError: no route); "
        "trying again while the job continues",
        "Not uploaded to faulty://bucket/prefix/job: 10 files (OSError: no route); "
        "the same command uploads what is missing",
    ]


def test_another_attempt_uploads_what_is_missing(run: RunDir, place: Place) -> None:
    complete_run(run, "a")
    FaultyFileSystem.before = staticmethod(stop_after(5))
    (told,) = sent_now(run, place)
    assert told.startswith("Not uploaded")
    FaultyFileSystem.reset_faults()
    assert sent_now(run, place) == ["Uploaded: faulty://bucket/prefix/job"]
    assert FaultyFileSystem.files() == copied(run)


def test_a_place_that_comes_back_is_sent_to_while_the_job_goes_on(
    run: RunDir, place: Place
) -> None:
    asked: list[str] = []

    def refuse(operation: str, path: str) -> None:
        asked.append(operation)
        away(operation, path)

    FaultyFileSystem.before = staticmethod(refuse)
    with Mirror(run, place, print):
        complete_run(run, "a")
        wait_until(lambda: len(asked) > 2)
        FaultyFileSystem.reset_faults()
        wait_until(lambda: FaultyFileSystem.files() == copied(run))


def test_pauses_between_attempts_grow_and_vary(run: RunDir, place: Place) -> None:
    away_for_long = Mirror(run, place, print)
    pauses = []
    for faults in (1, 2, 3, 30):
        away_for_long._faults_in_a_row = faults
        pauses.append({away_for_long._pause_s() for _ in range(50)})
    assert all(len(set_) > 1 for set_ in pauses)
    assert max(pauses[0]) < 2 * mirror.FIRST_WAIT_S < 1.01 * max(pauses[2])
    assert max(pauses[3]) <= 1.5 * mirror.LONGEST_WAIT_S


@pytest.mark.parametrize("error", [HardwareError("no memory"), Stopped("SIGTERM")])
def test_the_jobs_own_error_is_raised(run: RunDir, place: Place, error: BaseException) -> None:
    FaultyFileSystem.before = staticmethod(away)
    with pytest.raises(type(error)), Mirror(run, place, print):
        raise error


# ---------------------------------------------------------------- waiting


@pytest.fixture
def never() -> Any:
    """Makes the place hang until the test is over: what returns before does not wait for it."""
    released = threading.Event()

    def wait(_: str, __: str) -> None:
        released.wait()

    yield wait
    released.set()


def test_a_place_that_hangs_holds_the_job_up_for_its_first_answer_only(
    run: RunDir, place: Place, never: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FIRST_ANSWER_S", 0.2)
    monkeypatch.setattr(mirror, "PATIENCE_S", 0.1)
    FaultyFileSystem.before = staticmethod(never)
    told: list[str] = []
    with Mirror(run, place, told.append):
        pass
    assert told[0].startswith("Note: no answer from")


@pytest.mark.parametrize("stop", [Stopped("SIGTERM"), StoppedError("stopped (SIGTERM)")])
def test_after_a_stop_a_place_that_hangs_is_waited_for_briefly(
    run: RunDir, place: Place, never: Any, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    monkeypatch.setattr(mirror, "STOP_WAIT_S", 0.2)
    told: list[str] = []
    upload = Mirror(run, place, told.append).__enter__()
    FaultyFileSystem.before = staticmethod(never)
    complete_run(run, "a")
    upload.__exit__(type(stop), stop, None)
    assert "the same command uploads what is missing" in told[0]


def test_stages_complete_before_a_stop_are_not_reported_as_missing(
    run: RunDir, place: Place
) -> None:
    told: list[str] = []
    upload = Mirror(run, place, told.append).__enter__()
    complete_run(run, "a")
    wait_until(lambda: not upload.missing)
    write_text(run.hardware, "a line more")
    FaultyFileSystem.before = staticmethod(away)
    upload.__exit__(Stopped, Stopped("SIGTERM"), None)
    assert told[0].startswith("Uploaded: faulty://bucket/prefix/job, except for the last lines")


def test_at_the_end_a_slow_place_is_waited_for_while_bytes_move(
    run: RunDir, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr(mirror, "time", clock)
    complete_run(run, "a")
    (run.root / "large").write_bytes(bytes(10))
    send = place.send

    def send_slowly(name: str, file: Path, moved: Callable[[], None]) -> None:
        if name == "large":
            nonlocal now
            for _ in range(10):
                now += 0.8 * mirror.PATIENCE_S
                moved()
        send(name, file, moved)

    monkeypatch.setattr(place, "send", send_slowly)
    assert sent_now(run, place) == ["Uploaded: faulty://bucket/prefix/job"]


def test_at_the_end_a_place_where_nothing_moves_is_given_up(
    run: RunDir, place: Place, never: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "PATIENCE_S", 0.2)
    told: list[str] = []
    with Mirror(run, place, told.append):
        FaultyFileSystem.before = staticmethod(never)
        complete_run(run, "a")
    assert told[-1].startswith("Not uploaded")


def test_a_signal_ends_the_wait_at_the_end_and_is_reported(
    run: RunDir, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete_run(run, "a")
    told: list[str] = []
    FaultyFileSystem.before = staticmethod(lambda operation, path: time.sleep(0.05))

    def stop() -> None:
        raise Stopped("SIGTERM")

    upload = Mirror(run, place, told.append)
    monkeypatch.setattr(upload, "_wait_while_bytes_move", stop)
    with pytest.raises(Stopped), upload:
        pass
    assert told[-1].startswith("Not uploaded")
