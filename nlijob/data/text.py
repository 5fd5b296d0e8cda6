"""Files as bytes and as lines of UTF-8, also compressed, with a fault that says what else they are.

Nothing here holds more than a block and a line of a file at a time.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from nlijob.disk import NEEDS_SPACE
from nlijob.errors import NotAvailableError, first_line

BLOCK_BYTES = 1 << 20
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON can encode it, but it is not valid text."""
SNIFFED_BYTES = 99
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Endings of compressed files that are read as what they hold."""
KINDS = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "a Git LFS pointer: the content itself was not downloaded",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
"""First bytes of files that are not what their name says."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def compression_of(path: Path) -> str:
    """How a file is compressed, by the ending of its name; "" if it is not."""
    return COMPRESSIONS.get(path.suffix.lower(), "")


def format_of(path: Path) -> str:
    """The ending that tells a file's format, without that of its compression: ".jsonl"."""
    name = path.name.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    return Path(name).suffix


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their line feeds, without a byte order mark.

    Raises NotAvailableError that says what the file is, or where it is not UTF-8.
    """
    with open_bytes(path) as file:
        mark = _skip_mark(path, file)
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                byte = error.start + 1 + (mark if number == 1 else 0)
                raise _other_encoding(
                    path,
                    f"line {number}, byte {byte} (0x{line[error.start]:02x}) is not UTF-8; the "
                    "file may be Latin-1 or Windows-1252",
                    "WINDOWS-1252",
                ) from error


def text_blocks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in blocks, however long its lines are. Raises as `text_lines`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        _skip_mark(path, file)
        try:
            while block := file.read(BLOCK_BYTES):
                yield decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            for _ in text_lines(path):  # it knows the line
                pass
            raise


def first_text(path: Path) -> str:
    """The first line of a file that has any content, without blanks around it; "" without one."""
    return next((line.strip() for line in text_lines(path) if line.strip()), "")


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """The content of a file, unpacked if its name says that it is compressed.

    What goes wrong while it is read in the block is raised as NotAvailableError.
    """
    try:
        with contextlib.closing(_opened(path)) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno in NEEDS_SPACE:  # for an unpacked copy
            raise
        if compression_of(path) and error.errno is None:  # what pyarrow raises
            raise _damaged(path, error) from error
        raise NotAvailableError(
            f"{path} cannot be read: {first_line(error)}", "check the file and its access rights"
        ) from error


@contextlib.contextmanager
def open_seekable(path: Path) -> Iterator[IO[bytes]]:
    """A file in which one can go back and forth; a compressed one is unpacked to a nameless file.

    What goes wrong while it is unpacked is raised as NotAvailableError.
    """
    if not compression_of(path):
        with path.open("rb") as plain:
            yield plain
        return
    with tempfile.TemporaryFile() as unpacked:
        with open_bytes(path) as packed:
            shutil.copyfileobj(packed, unpacked, BLOCK_BYTES)
        unpacked.seek(0)
        yield unpacked


def _opened(path: Path) -> io.BufferedReader:
    if compression_of(path) == "gzip":
        return io.BufferedReader(cast(Any, gzip.GzipFile(path)), BLOCK_BYTES)
    if compression_of(path) == "zstd":
        import pyarrow  # of the required libraries the only one that reads Zstandard

        unpacking = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return io.BufferedReader(unpacking, BLOCK_BYTES)
    return cast(io.BufferedReader, path.open("rb", BLOCK_BYTES))


def _skip_mark(path: Path, file: io.BufferedReader) -> int:
    """Go behind the byte order mark, and return its size. Raises if the file is no UTF-8 text."""
    start = file.peek(SNIFFED_BYTES)[:SNIFFED_BYTES]
    _refuse_other_kinds(path, start)
    return len(file.read(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0))


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            raise _other_encoding(path, f"its byte order mark says {encoding}", encoding)
    if 0 in start[:2]:  # ASCII characters in UTF-16 without a mark
        raise _other_encoding(path, "it looks like UTF-16", "UTF-16")
    for mark, kind in KINDS.items():
        if start.startswith(mark) or start.lstrip().lower().startswith(mark):
            raise NotAvailableError(
                f"{path} cannot be read: it is {kind}",
                f"give a plain {path.suffix} file in UTF-8"
                if not compression_of(path)
                else "unpack it, and compress the text itself once",
            )


def _damaged(path: Path, error: BaseException) -> NotAvailableError:
    return NotAvailableError(
        f"{path} cannot be read: {first_line(error)}",
        "the file may be cut off or damaged, or not be compressed with "
        f"{compression_of(path)}; fetch it again",
    )


def _other_encoding(path: Path, what: str, encoding: str) -> NotAvailableError:
    return NotAvailableError(
        f"{path} cannot be read: {what}",
        f"text files are read as UTF-8; convert it: iconv -f {encoding} -t UTF-8 "
        f"{path.name} > converted{path.suffix}",
    )
