"""A run is downloaded completely or not at all, and never mixed with another run."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from nlijob.errors import NotAvailableError
from nlijob.files import append
from nlijob.rundir import RunDir, write_text
from nlijob.storage import contents, resume
from nlijob.storage.mirror import Mirror
from nlijob.storage.place import Place
from tests.faulty_place import (
    FaultyFileSystem,
    complete,
    complete_epoch,
    complete_run,
    complete_step,
)
from tests.markers import made_from

STAGES = ("subset", "train-epoch-1", "train-epoch-2", "report")


@pytest.fixture
def sent(run: RunDir, place: Place) -> RunDir:
    """A run with fingerprint "a" that has been uploaded."""
    complete_run(run, "a")
    with Mirror(run, place, lambda _: None):
        pass
    FaultyFileSystem.calls.clear()
    return run


@pytest.fixture
def here(tmp_path: Path) -> RunDir:
    """The run's folder on another machine."""
    return RunDir(tmp_path / "elsewhere" / "job")


def told_by_resume(run: RunDir, place: Place) -> str:
    told: list[str] = []
    resume.resume(run, place, told.append)
    return "\n".join(told)


def content(run: RunDir) -> dict[str, str]:
    return {name: (run.root / name).read_text("utf-8") for name in contents.stamps(run.root)}


def fetches() -> list[str]:
    return [name for operation, name in FaultyFileSystem.calls if operation == "fetch"]


# ---------------------------------------------------------------- what is fetched


def test_everything_complete_is_downloaded_to_a_new_machine(
    sent: RunDir, place: Place, here: RunDir
) -> None:
    told = told_by_resume(here, place)
    assert told == (
        "Resuming from faulty://bucket/prefix/job: downloaded 4 complete stages and epochs"
    )
    assert content(here) == content(sent)
    assert all(here.is_complete(stage, made_from("a").fingerprint) for stage in STAGES)


def test_an_empty_copy_changes_nothing_and_is_reported(place: Place, here: RunDir) -> None:
    complete(here, "subset", "a", "subset/test.jsonl")
    before = content(here)
    told = told_by_resume(here, place)
    assert told == "Nothing complete at faulty://bucket/prefix/job to resume from"
    assert content(here) == before


def test_an_incomplete_copy_counts_as_empty(sent: RunDir, place: Place, here: RunDir) -> None:
    place.remove("report.html")
    for epoch in (1, 2):
        place.write(f"train/epoch-{epoch}/adapter", b"of another size")
    told_by_resume(here, place)
    assert [stage for stage in STAGES if here.is_complete(stage, made_from("a").fingerprint)] == [
        "subset"
    ]


def test_a_folder_as_complete_as_the_copy_is_left_alone(sent: RunDir, place: Place) -> None:
    write_text(sent.hardware, "this machine's own")
    before = content(sent)
    assert told_by_resume(sent, place) == ""
    assert fetches() == []
    assert content(sent) == before


def test_a_folder_that_is_further_is_left_alone(sent: RunDir, place: Place) -> None:
    complete_epoch(sent, 3, "a")
    before = content(sent)
    assert "is left as it is" in told_by_resume(sent, place)
    assert content(sent) == before


def test_a_folder_with_another_run_is_left_alone(sent: RunDir, place: Place, here: RunDir) -> None:
    complete(here, "subset", "b", "subset/test.jsonl")
    before = content(here)
    assert "is left as it is" in told_by_resume(here, place)
    assert content(here) == before


def test_an_earlier_state_of_the_run_is_replaced_entirely(
    sent: RunDir, place: Place, here: RunDir
) -> None:
    sent_marker = sent.marker("subset").read_text("utf-8")
    complete(here, "subset", "a", "subset/test.jsonl")
    write_text(here.marker("subset"), sent_marker)
    write_text(here.config, "older")
    write_text(here.training_state(1), "of an epoch that was cut off here")
    told_by_resume(here, place)
    assert content(here) == content(sent)


def test_a_folder_with_nothing_complete_is_replaced_entirely(
    sent: RunDir, place: Place, here: RunDir
) -> None:
    complete_run(here, "b")
    here.report.unlink()
    for stage in ("subset", "train-epoch-1", "train-epoch-2"):
        here.unmark(stage)
    told_by_resume(here, place)
    assert content(here) == content(sent)


def test_files_outside_the_run_are_not_written(sent: RunDir, place: Place, here: RunDir) -> None:
    FaultyFileSystem.store["/bucket/prefix/job//escaped"] = FaultyFileSystem.store[
        "/bucket/prefix/job/config.json"
    ]
    told_by_resume(here, place)
    assert content(here) == content(sent)


# ---------------------------------------------------------------- checkpoints within epochs


@pytest.mark.parametrize("of", ["", "trials/seed-43"])
@pytest.mark.parametrize(
    ("here_at", "fetched"),
    [((3, 40), True), ((2, 90), True), ((3, 90), False), ((4, 1), False)],
)
def test_a_folder_gives_way_to_a_copy_that_is_further_within_an_epoch(
    sent: RunDir, place: Place, tmp_path: Path, here_at: tuple[int, int], fetched: bool, of: str
) -> None:
    here = RunDir(shutil.copytree(sent.root, tmp_path / "elsewhere" / "job"))
    complete_step(here.view(of), *here_at, "a")
    complete_step(sent.view(of), 3, 80, "a")
    with Mirror(sent, place, lambda _: None):
        pass
    before = content(here)
    told = told_by_resume(here, place)
    assert content(here) == (content(sent) if fetched else before)
    assert ("and a checkpoint within an epoch" in told) == fetched


def test_times_that_the_copy_lacks_are_kept(sent: RunDir, place: Place, tmp_path: Path) -> None:
    # of an attempt that was killed before its last lines were uploaded
    append(sent.timings, b"of the first attempt\n")
    here = RunDir(shutil.copytree(sent.root, tmp_path / "elsewhere" / "job"))
    append(here.timings, b"of an attempt that was killed here\n")
    append(sent.timings, b"of another machine\n")
    complete_step(sent, 3, 80, "a")
    with Mirror(sent, place, lambda _: None):
        pass
    assert "a checkpoint within an epoch" in told_by_resume(here, place)
    assert here.timings.read_bytes().splitlines() == [
        b"of the first attempt",
        b"of another machine",
        b"of an attempt that was killed here",
    ]


def test_a_checkpoint_within_an_epoch_of_another_run_is_not_replaced(
    sent: RunDir, place: Place, tmp_path: Path
) -> None:
    here = RunDir(shutil.copytree(sent.root, tmp_path / "elsewhere" / "job"))
    complete_step(here, 1, 1, "b")
    complete_step(sent, 3, 80, "a")
    with Mirror(sent, place, lambda _: None):
        pass
    before = content(here)
    assert "is left as it is" in told_by_resume(here, place)
    assert content(here) == before


def test_foreign_files_at_a_place_and_in_the_folder_are_left_alone(
    sent: RunDir, place: Place, here: RunDir
) -> None:
    before = content(sent)
    foreign = {"notes.txt", *(f"photos/{number}.jpg" for number in range(3000))}
    for name in foreign:
        place.write(name, b"of a person")
    write_text(here.root / "my notes.txt", "of a person")
    told_by_resume(here, place)
    assert content(here) == {**before, "my notes.txt": "of a person"}
    assert not foreign & set(fetches())


def test_nothing_is_written_through_a_link_in_the_runs_folder(
    sent: RunDir, place: Place, here: RunDir, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    here.root.mkdir(parents=True)
    here.report.symlink_to(outside / "file")
    (here.root / "markers").symlink_to(outside)
    here.train_folder.symlink_to(outside)
    told_by_resume(here, place)
    assert content(here) == content(sent)
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "outside"


def test_a_folder_in_place_of_a_file_is_replaced(sent: RunDir, place: Place, here: RunDir) -> None:
    (here.report / "x").mkdir(parents=True)
    write_text(here.train_folder, "a file in place of a folder")
    told_by_resume(here, place)
    assert content(here) == content(sent)


def test_a_local_file_that_rotted_is_fetched_again(sent: RunDir, place: Place) -> None:
    before = content(sent)
    write_text(sent.subset("test"), before["subset/test.jsonl"].replace("of a", "of b"))
    assert "downloaded 4 complete" in told_by_resume(RunDir(sent.root), place)
    assert content(sent) == before


def test_a_file_that_rotted_in_the_copy_leaves_out_its_stage(
    sent: RunDir, place: Place, here: RunDir
) -> None:
    place.write("train/epoch-2/adapter", b"train/epoch-2/adapter of X")
    told = told_by_resume(here, place)
    assert "downloaded 3 complete stages and epochs" in told
    note = (
        "Note: markers/train-epoch-2.json at faulty://bucket/prefix/job is left out, as it lists "
    )
    assert f"{note}damaged files: train/epoch-2/adapter" in told
    whole = [s for s in STAGES if here.is_complete(s, made_from("a").fingerprint)]
    assert whole == ["subset", "train-epoch-1", "report"]


def test_bytes_damaged_on_their_way_are_fetched_again(
    sent: RunDir, place: Place, here: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Place.fetch

    def faulty(self: Place, name: str, file: Path, *more: object) -> None:
        fetch(self, name, file, *more)  # type: ignore[arg-type]
        if name == "report.html" and fetches().count(name) == 1:
            file.write_bytes(b"X" + file.read_bytes()[1:])

    monkeypatch.setattr(Place, "fetch", faulty)
    assert "downloaded 4 complete" in told_by_resume(here, place)
    assert content(here) == content(sent)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("fetched", range(6))
def test_an_interrupted_download_leaves_nothing_complete_and_is_repeated(
    sent: RunDir, place: Place, here: RunDir, fetched: int
) -> None:
    def cut_off(operation: str, _: str) -> None:
        if operation == "fetch" and len(fetches()) == fetched:
            raise OSError("gone")

    FaultyFileSystem.before = staticmethod(cut_off)
    with pytest.raises(NotAvailableError):
        told_by_resume(here, place)
    assert contents.markers(here.root) == {}

    FaultyFileSystem.reset_faults()
    told_by_resume(here, place)
    assert content(here) == content(sent)


def test_temporary_errors_are_retried(sent: RunDir, place: Place, here: RunDir) -> None:
    failed = set()

    def fail_once(operation: str, path: str) -> None:
        if (operation, path) not in failed:
            failed.add((operation, path))
            raise OSError("slow down")

    FaultyFileSystem.before = staticmethod(fail_once)
    told_by_resume(here, place)
    assert content(here) == content(sent)
    assert failed


@pytest.mark.parametrize(
    ("error", "attempts"), [(OSError("away"), 3), (PermissionError("no"), 1), (KeyError("x"), 3)]
)
def test_a_remote_copy_that_cannot_be_read_ends_with_4(
    place: Place, here: RunDir, error: Exception, attempts: int
) -> None:
    asked = []

    def fail(operation: str, path: str) -> None:
        asked.append(operation)
        raise error

    FaultyFileSystem.before = staticmethod(fail)
    with pytest.raises(NotAvailableError) as caught:
        told_by_resume(here, place)
    assert caught.value.exit_code == 4
    assert caught.value.message.startswith("--upload faulty://bucket/prefix/job cannot be read: ")
    assert len(asked) == attempts


def test_a_place_that_hangs_ends_with_4_in_bounded_time(
    place: Place, here: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "ANSWER_S", 0.2)
    released = threading.Event()
    FaultyFileSystem.before = staticmethod(lambda operation, path: released.wait())
    with pytest.raises(NotAvailableError, match="no answer within"):
        told_by_resume(here, place)
    released.set()


def test_a_download_in_which_nothing_moves_ends_with_4(
    sent: RunDir, place: Place, here: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SILENCE_S", 0.2)
    released = threading.Event()
    FaultyFileSystem.before = staticmethod(
        lambda operation, path: operation == "fetch" and released.wait()
    )
    with pytest.raises(NotAvailableError, match="no answer within"):
        told_by_resume(here, place)
    released.set()
    assert contents.markers(here.root) == {}
