"""Which files of a run are copied, and when a marker is valid."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", ["../other", "a/../../b", "/etc/passwd", "train//x", "train/", ""])
def test_names_that_lead_out_of_the_run_are_not_copied(name: str) -> None:
    assert not contents.is_copied(name)


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
