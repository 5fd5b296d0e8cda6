"""Runs are found at any depth, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlijob.run_folders import find_runs


def a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    return folder


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("run", "team/run", "team/2026/11/nightly"):
        a_run(tmp_path / name)
    found = find_runs(tmp_path)
    assert found.names == ("run", "team/2026/11/nightly", "team/run")
    assert (found.others, found.links_out, found.unreadable) == (0, 0, ())


def test_folders_inside_a_run_are_its_own(tmp_path: Path) -> None:
    a_run(a_run(tmp_path / "run") / "worker" / "copy")
    assert find_runs(tmp_path).names == ("run",)


def test_what_a_run_replaced_is_left_out(tmp_path: Path) -> None:
    a_run(tmp_path / "team" / "run.previous")
    assert find_runs(tmp_path).names == ()


def test_a_folder_without_a_run_at_any_depth_counts_once(tmp_path: Path) -> None:
    (tmp_path / "notes" / "old" / "older").mkdir(parents=True)
    a_run(tmp_path / "team" / "run")
    (tmp_path / "team" / "notes").mkdir()
    assert find_runs(tmp_path).others == 1


def test_a_link_to_a_run_beside_it_is_not_another_run(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to("run")
    found = find_runs(tmp_path)
    assert (found.names, found.links_out, found.others) == (("run",), 0, 0)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    a_run(tmp_path / "team" / "run")
    (tmp_path / "team" / "again").symlink_to(tmp_path)
    assert find_runs(tmp_path).names == ("team/run",)


def test_a_link_that_leads_elsewhere_is_counted_and_not_followed(tmp_path: Path) -> None:
    a_run(tmp_path / "elsewhere" / "run")
    a_run(tmp_path / "runs" / "own")
    (tmp_path / "runs" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "nowhere").symlink_to(tmp_path / "missing")
    found = find_runs(tmp_path / "runs")
    assert (found.names, found.links_out) == (("own",), 1)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    a_run(tmp_path / "disk" / "team" / "run")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    assert find_runs(tmp_path / "runs").names == ("team/run",)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_runs(tmp_path / "nowhere")
