"""Which files of a run are copied, and when a marker is valid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nlijob.rundir import RunDir, epoch_marker
from nlijob.storage import contents
from tests.faulty_place import complete, complete_epoch


@pytest.mark.parametrize(
    "name", ["report.html", "train/epoch-1/adapter_model.safetensors", "worker/log.txt"]
)
def test_results_and_logs_are_copied(name: str) -> None:
    assert contents.is_copied(name)


@pytest.mark.parametrize(
    "name", [".lock", "train/state-1.tmp", "train/.report.html.7.tmp", "worker/task.json"]
)
def test_locks_unfinished_files_and_messages_are_not_copied(name: str) -> None:
    assert not contents.is_copied(name)


@pytest.mark.parametrize(
    "name",
    [
        *("../other", "a/../../b", "/etc/passwd", "train//x", "train/", ""),
        *("train/\0", f"train/{'x' * 256}", f"train/{'ü' * 128}", "train/\udcfc"),
    ],
)
def test_names_that_lead_out_of_the_run_are_not_copied(name: str) -> None:
    assert not contents.is_copied(name)


@pytest.mark.parametrize("name", ["report.html", "train/epoch-1/new.txt", "markers/x", "subset/x"])
def test_names_below_a_runs_own_are_of_a_run(name: str) -> None:
    assert contents.is_of_a_run(name)


@pytest.mark.parametrize("name", ["notes.txt", "photos/1.jpg", "report.html.bak"])
def test_other_names_are_not_of_a_run(name: str) -> None:
    assert not contents.is_of_a_run(name)


def test_links_and_pipes_in_a_run_are_not_copied(tmp_path: Path) -> None:
    root, outside = tmp_path / "run", tmp_path / "outside"
    (root / "train").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("x")
    (root / "report.html").symlink_to(outside / "secret")
    (root / "subset").symlink_to(outside)
    (root / "markers").symlink_to(outside)
    os.mkfifo(root / "train" / "pipe")
    (root / "train" / "log.jsonl").write_text("x")
    assert contents.stamps(root).keys() == {"train/log.jsonl"}
    assert contents.stamps(root, "markers/") == {}


def test_a_run_folder_that_is_a_link_itself_is_copied(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "report.html").write_text("x")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert contents.stamps(tmp_path / "run").keys() == {"report.html"}


def test_the_way_of_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    root, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (root / "report.html" / "x", outside):
        folder.mkdir(parents=True)
    (outside / "file").write_text("x")
    (root / "train").symlink_to(outside)
    (root / "subset").write_text("a file in place of a folder")
    (root / "config.json").symlink_to(outside / "file")
    for name in ("train/file", "subset/test.jsonl", "config.json", "report.html"):
        path = contents.clear_way(root, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("of the run")
    assert (outside / "file").read_text() == "x"


def test_markers_come_in_the_order_of_epochs(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for epoch in (10, 9, 1):
        complete(run, f"train-epoch-{epoch}", "a", "file")
    names = [f"markers/train-epoch-{epoch}.json" for epoch in (1, 9, 10)]
    assert list(contents.markers(tmp_path)) == names


@pytest.mark.parametrize(
    ("sizes", "holds"), [({"f": 6}, True), ({"f": 6, "g": 1}, True), ({"f": 5}, False), ({}, False)]
)
def test_a_marker_is_valid_while_its_files_have_their_sizes(
    tmp_path: Path, sizes: dict[str, int], holds: bool
) -> None:
    complete(RunDir(tmp_path), "subset", "a", "f")
    (marker,) = contents.markers(tmp_path).values()
    assert contents.is_valid(marker, sizes) == holds


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff"])
def test_a_damaged_marker_is_never_valid(content: bytes) -> None:
    assert not contents.is_valid(content, {})


def test_an_epochs_marker_names_its_training_state(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    complete_epoch(run, 3, "a")
    content = contents.markers(tmp_path)[run.name(run.marker(epoch_marker(3)))]
    assert list(contents.needed_to_continue(content)) == [run.name(run.training_state(3))]
    assert list(contents.listed(content)) == ["train/epoch-3/adapter"]
