"""What a safetensors file says about itself, and what a damaged one is told to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlijob.weight_files import BrokenFileError, stored_tensors


def stored(entries: object, data: bytes = bytes(range(24))) -> bytes:
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(begin: int, end: int, **changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end], **changes}


WHOLE = stored({"__metadata__": {"format": "pt"}, "a": entry(0, 16), "b": entry(16, 24)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def fault(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(BrokenFileError) as caught:
        stored_tensors(file)
    return str(caught.value)


def test_tensors_are_told_with_their_places(file: Path) -> None:
    file.write_bytes(WHOLE)
    data = len(WHOLE) - 24
    assert [
        (t.name, t.dtype, t.shape, t.start - data, t.end - data) for t in stored_tensors(file)
    ] == [
        ("a", "F32", (4,), 0, 16),
        ("b", "F32", (2,), 16, 24),
    ]


def test_a_file_cut_off_anywhere_is_refused(file: Path) -> None:
    for length in range(len(WHOLE)):
        assert fault(file, WHOLE[:length])


def test_a_file_that_ends_within_a_tensor_names_it(file: Path) -> None:
    assert fault(file, WHOLE[:-1]).endswith("ends in tensor b")
    assert fault(file, WHOLE[:-9]).endswith("ends in tensor a")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "is not a safetensors file"),
        (bytes(100), "is not a safetensors file"),
        (WHOLE + b"more", "has 4 bytes more than its header says"),
        (stored(b"{" + b"x" * 30), "not JSON"),
        (stored(b'{"a":' * 5000), "not JSON"),
        (stored({"a": entry(0, 16), "b": entry(12, 24)}), "tensor b is misplaced"),
        (stored({"a": entry(0, 8), "b": entry(16, 24)}), "tensor b is misplaced"),
        (stored({"a": entry(0, 24, shape=[7])}), "tensor a of shape [7]"),
        (stored({"a": entry(0, 24, shape=[-6])}), "tensor a of shape [-6]"),
        (stored({"a": entry(0, 24, dtype="F33")}), "damaged header at tensor a"),
        (stored({"a": entry(0, 24, data_offsets=[0])}), "damaged header at tensor a"),
        (stored({"a": entry(0, 24, shape="six")}), "tensor a"),
        (stored({"a": 3}), "damaged header at tensor a"),
    ],
)
def test_a_damaged_file_is_told_by_what_is_wrong(file: Path, content: bytes, told: str) -> None:
    assert told in fault(file, content)


def test_a_file_without_tensors_is_whole(file: Path) -> None:
    file.write_bytes(stored({}, b""))
    assert stored_tensors(file) == []


def test_a_flipped_byte_of_the_header_is_refused_or_changes_what_the_file_says(file: Path) -> None:
    file.write_bytes(WHOLE)
    whole = stored_tensors(file)
    header = len(WHOLE) - 24
    for at in range(header):
        flipped = bytearray(WHOLE)
        flipped[at] ^= 0x40
        file.write_bytes(flipped)
        try:
            told = stored_tensors(file)
        except BrokenFileError:
            continue
        in_metadata = b"__metadata__" in WHOLE[:at] and at < WHOLE.index(b'"a"')
        assert told != whole or in_metadata
