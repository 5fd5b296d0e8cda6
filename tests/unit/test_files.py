"""Files are written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nlijob.files import atomic_write, fresh_folder


def test_a_file_appears_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_write(path) as handle:
        handle.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_after_an_error_the_old_file_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_write(path) as handle:
        handle.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_replaces_the_old_one_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "epoch-1"
    for content in ("old", "new"):
        with fresh_folder(path) as folder:
            (folder / content).write_text(content)
            assert not (path / "new").exists()
    assert names(tmp_path) == ["epoch-1", "epoch-1/new"]


def test_after_an_error_the_old_folder_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "epoch-1"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(FileNotFoundError), fresh_folder(path) as folder:
        (folder / "in" / "no folder").touch()
    assert names(tmp_path) == ["epoch-1", "epoch-1/old"]


def test_what_a_killed_writer_left_is_not_part_of_the_next_folder(tmp_path: Path) -> None:
    path = tmp_path / "epoch-1"
    with fresh_folder(path) as folder:
        left = folder
    left.mkdir()
    (left / ".tmpAbC").touch()
    path.rmdir()
    path.touch()  # and somebody put a file there
    with fresh_folder(path) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["epoch-1", "epoch-1/new"]


def test_where_folders_cannot_be_renamed_their_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, to: Path) -> None:
        raise OSError(24, "Too many open files")  # what a mounted bucket says

    monkeypatch.setattr(Path, "rename", refuse)
    with fresh_folder(tmp_path / "epoch-1") as folder:
        (folder / "new").write_text("content")
    assert names(tmp_path) == ["epoch-1", "epoch-1/new"]
    assert (tmp_path / "epoch-1" / "new").read_text() == "content"


STOPPED_AT_RANDOM = """
import random, signal, sys
from pathlib import Path
from nlijob.files import Piece, sha256_of
from nlijob.stopping import Stopped

def stop(*_):
    raise Stopped

signal.signal(signal.SIGALRM, stop)
for _ in range(600):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.004))
        try:
            sha256_of([Piece(Path(sys.argv[1]))] * 20)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Stopped:
        continue
"""


def test_a_stop_while_files_are_hashed_never_waits_for_ever(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    argv = [sys.executable, "-c", STOPPED_AT_RANDOM, str(tmp_path / "file")]
    assert subprocess.run(argv, timeout=120, check=False).returncode == 0
