"""Files that are not UTF-8 text are told apart, with the place of the first fault."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pyarrow
import pytest

from nlijob.data.text import format_of, text_lines
from nlijob.errors import NotAvailableError

TEXT = 'premise,hypothesis,label\n"Une fête, hélas",non,0\n'


def refusal(tmp_path: Path, content: bytes) -> NotAvailableError:
    path = tmp_path / "test.csv"
    path.write_bytes(content)
    with pytest.raises(NotAvailableError) as caught:
        list(text_lines(path))
    return caught.value


def test_latin_1_is_told_with_line_and_byte(tmp_path: Path) -> None:
    error = refusal(tmp_path, TEXT.encode("latin-1"))
    assert "line 2, byte 7 (0xea) is not UTF-8; the file may be Latin-1" in error.message
    assert "iconv -f WINDOWS-1252 -t UTF-8 test.csv" in error.hint


def test_the_place_is_right_behind_a_byte_order_mark(tmp_path: Path) -> None:
    error = refusal(tmp_path, codecs.BOM_UTF8 + b"ab\xe9")
    assert "line 1, byte 6 (0xe9)" in error.message


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32")],
)
def test_wide_encodings_are_named(tmp_path: Path, encoding: str, name: str) -> None:
    error = refusal(tmp_path, TEXT.encode(encoding))
    assert name in error.message
    assert f"iconv -f {name}" in error.hint


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(TEXT.encode(), mtime=0), "it is compressed with gzip"),
        (b"PAR1\x15", "it is a Parquet file"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"\n<!DOCTYPE HTML><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, content: bytes, kind: str) -> None:
    assert kind in refusal(tmp_path, content).message


def test_text_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TEXT, encoding="utf-8-sig")
    assert "".join(text_lines(tmp_path / "a.csv")) == TEXT


# ---------------------------------------------------------------- compressed files


def compressed(path: Path, content: bytes) -> bytes:
    """The content as the name of the file says; a stream of two parts."""
    if path.suffix.lower() == ".gz":
        return b"".join(gzip.compress(part, mtime=0) for part in (content[:9], content[9:]))
    stream = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(stream, "zstd") as packed:
        packed.write(content)
    return bytes(stream.getvalue().to_pybytes())


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "A.CSV.GZ", "a.jsonl.zst"])
def test_compressed_text_is_read_as_what_it_holds(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(compressed(path, codecs.BOM_UTF8 + TEXT.encode() * 9))
    assert "".join(text_lines(path)) == TEXT * 9
    assert format_of(path) in (".csv", ".jsonl")


@pytest.mark.parametrize(
    ("name", "damage"),
    [(f"a.csv{ending}", damage) for ending in (".gz", ".zst") for damage in ("cut", "plain")]
    + [("a.csv.gz", "changed")],
)
def test_a_damaged_compressed_file_is_told(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    content = compressed(path, bytes(range(32, 127)) * 9 + TEXT.encode())
    wrong = {
        "cut": content[:-9],
        "plain": TEXT.encode(),
        "changed": content[:12] + bytes(9) + content[21:],
    }
    path.write_bytes(wrong[damage])
    with pytest.raises(NotAvailableError) as caught:
        list(text_lines(path))
    assert f"{name} cannot be read: " in caught.value.message
    assert "may be cut off or damaged, or not be compressed with" in caught.value.hint


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst"])
def test_what_is_compressed_twice_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(compressed(path, gzip.compress(TEXT.encode(), mtime=0)))
    with pytest.raises(NotAvailableError, match="it is compressed with gzip"):
        list(text_lines(path))
