"""Parquet and Arrow files, and the names of labels that their metadata carry."""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlijob.analysis.wording import count
from nlijob.data.features import class_labels
from nlijob.data.table import ClassLabels, Content, Row, Survey, refuse_repeated_columns
from nlijob.data.text import open_seekable
from nlijob.errors import NotAvailableError, first_line

BATCH_ROWS = 4096
ARROW_FILE = b"ARROW1"
"""How an Arrow file begins; a stream of the same batches, as `datasets` writes it, has no mark."""


@dataclass(frozen=True)
class ParquetRows:
    """The rows of a .parquet file; checksums of its pages are verified where it has them."""

    path: Path

    def check(self, survey: Survey) -> Content:
        """Read all of the file. Raises NotAvailableError if it cannot be read."""
        with self._opened() as file:
            schema = file.schema_arrow
            refuse_repeated_columns(self.path, schema.names)
            rows = _surveyed(file.iter_batches(BATCH_ROWS), schema.names, survey)
            stated = file.metadata.num_rows
        if rows != stated:  # what a damaged count of a row group looks like
            raise NotAvailableError(
                f"{self.path} cannot be read: it states {count(stated)} rows and holds "
                f"{count(rows)}",
                _damaged("Parquet"),
            )
        return _content(rows, schema)

    def rows(self, wanted: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The wanted rows; groups without any are not read."""
        numbers = sorted(wanted)
        with self._opened() as file:
            end = 0
            for group in range(file.num_row_groups):
                start, end = end, end + file.metadata.row_group(group).num_rows
                first, last = (bisect_left(numbers, bound) for bound in (start, end))
                if here := [number - start for number in numbers[first:last]]:
                    yield from _picked(file.iter_batches(BATCH_ROWS, row_groups=[group]), here)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow.parquet

        with _reading(self.path, "Parquet"), open_seekable(self.path) as content:
            yield pyarrow.parquet.ParquetFile(
                content, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 16
            )


@dataclass(frozen=True)
class ArrowRows:
    """The rows of an .arrow file, as `save_to_disk` of the library `datasets` writes it."""

    path: Path

    def check(self, survey: Survey) -> Content:
        """Read all of the file. Raises NotAvailableError if it cannot be read."""
        with self._batches() as (schema, batches):
            refuse_repeated_columns(self.path, schema.names)
            return _content(_surveyed(batches, schema.names, survey), schema)

    def rows(self, wanted: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The wanted rows."""
        with self._batches() as (_, batches):
            yield from _picked(batches, sorted(wanted))

    @contextlib.contextmanager
    def _batches(self) -> Iterator[tuple[Any, Iterator[Any]]]:
        import pyarrow.ipc

        with _reading(self.path, "Arrow"), open_seekable(self.path) as content:
            is_file = content.read(len(ARROW_FILE)) == ARROW_FILE
            content.seek(0)
            if is_file:
                file = pyarrow.ipc.open_file(content)
                yield file.schema, map(file.get_batch, range(file.num_record_batches))
            else:
                stream = pyarrow.ipc.open_stream(content)
                yield stream.schema, iter(stream)


@dataclass(frozen=True)
class LibraryRows:
    """The rows of a data set that the library `datasets` holds, which maps them from the disk."""

    dataset: Any

    def check(self, survey: Survey) -> Content:
        """Count the rows, and show the survey what it needs."""
        names = tuple(self.dataset.column_names)
        needed = [name for name in survey.begin(names) if name in names]
        if needed:
            for batch in self._batches(self.dataset.select_columns(needed)):
                for row in batch.to_pylist():
                    survey.see(row)
        labels = class_labels(self.dataset.features)
        return Content(len(self.dataset), names, class_labels=labels)

    def rows(self, wanted: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The wanted rows."""
        for batch in self._batches(self.dataset.select(list(wanted))):
            for row in batch.to_pylist():
                yield 0, row

    @staticmethod
    def _batches(dataset: Any) -> Iterator[Any]:
        return iter(dataset.with_format("arrow").iter(batch_size=BATCH_ROWS))


def _surveyed(batches: Iterable[Any], columns: Sequence[str], survey: Survey) -> int:
    """The number of rows in record batches, whose needed columns are shown to a survey."""
    needed = [name for name in survey.begin(tuple(columns)) if name in columns]
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        if needed:
            for row in batch.select(needed).to_pylist():
                survey.see(row)
    return rows


def _picked(batches: Iterable[Any], wanted: Sequence[int]) -> Iterator[tuple[int, Row]]:
    """The wanted rows of record batches, in order."""
    at, end = 0, 0
    for batch in batches:
        start, end = end, end + batch.num_rows
        first = at
        while at < len(wanted) and wanted[at] < end:
            at += 1
        if at > first:
            here = [number - start for number in wanted[first:at]]
            for row in batch.take(here).to_pylist():
                yield 0, row


def _content(rows: int, schema: Any) -> Content:
    return Content(rows, tuple(schema.names), class_labels=_class_labels(schema.metadata or {}))


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Errors of the library in the block are told as the file's."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise NotAvailableError(
            f"{path} cannot be read: {first_line(error)}", _damaged(kind)
        ) from error


def _damaged(kind: str) -> str:
    return f"the file may be cut off, damaged or not be {kind}; fetch or write it again"


def _class_labels(metadata: dict[bytes, bytes]) -> ClassLabels:
    """The names of labels that the library `datasets` stores in a schema; {} without them."""
    try:
        return class_labels(json.loads(metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}
