"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlijob.files import atomic_write


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
