"""Text files as UTF-8, with a fault that says what else a file is."""

from __future__ import annotations

import codecs
from pathlib import Path

from nlijob.errors import NotAvailableError

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


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, without the byte order mark that some programs write.

    Raises NotAvailableError that says what the file is, or where it is not UTF-8.
    """
    content = path.read_bytes()
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise _other_encoding(path, f"its byte order mark says {encoding}", encoding)
    if 0 in content[:2]:  # ASCII characters in UTF-16 without a mark
        raise _other_encoding(path, "it looks like UTF-16", "UTF-16")
    for start, kind in KINDS.items():
        if content.startswith(start) or content[:99].lstrip().lower().startswith(start):
            raise NotAvailableError(
                f"{path} cannot be read: it is {kind}",
                f"give a plain {path.suffix} file in UTF-8",
            )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + (len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0)
        line = content.count(b"\n", 0, at) + 1
        column = at - (content.rfind(b"\n", 0, at) + 1) + 1
        raise _other_encoding(
            path,
            f"line {line}, byte {column} (0x{content[at]:02x}) is not UTF-8; the file may be "
            "Latin-1 or Windows-1252",
            "WINDOWS-1252",
        ) from error


def _other_encoding(path: Path, what: str, encoding: str) -> NotAvailableError:
    return NotAvailableError(
        f"{path} cannot be read: {what}",
        f"text files are read as UTF-8; convert it: iconv -f {encoding} -t UTF-8 "
        f"{path.name} > converted{path.suffix}",
    )
